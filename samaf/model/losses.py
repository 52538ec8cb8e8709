"""The composite loss: mean squared error, Hash Loss, Bitwise Entropy Loss, and the guard against collapse.

Beside it, where there is a teacher, the difference from its codes.

All functions take *codes*: tanh activations in (-1, 1), shape (2 n, bits), where rows ``i`` and ``n + i`` are
*twins*, the same second of audio under two renderings. They use Keras operations only and return a scalar.

The SAMAF paper (Baez-Suarez et al., ACM TOMM 16(2), 2020) names the three terms and their roles: reconstruct,
bring similar seconds together, make a cluster's bits agree. The two forms of the Hash Loss are this project's.
"""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any

_TINY = 1e-6


def mean_squared_error(clean: Tensor, reconstruction: Tensor) -> Tensor:
    """Mean squared difference between the clean windows and what the decoder made of the codes."""
    return ops.mean(ops.square(ops.cast(clean, "float32") - ops.cast(reconstruction, "float32")))


def _unit(rows: Tensor) -> Tensor:
    return rows / (ops.sqrt(ops.sum(ops.square(rows), axis=-1, keepdims=True)) + _TINY)


def hash_loss_contrast(codes: Tensor, temperature: float = 0.07) -> Tensor:
    """Normalised-temperature cross-entropy: each code must pick its twin out of the whole batch.

    The form of Chen et al. (SimCLR, 2020, eq. 1) on codes brought to length 1; both directions count.
    """
    n = ops.shape(codes)[0] // 2
    unit = _unit(codes)
    similarity = ops.matmul(unit, ops.transpose(unit)) / temperature
    similarity = similarity - 1e9 * ops.eye(2 * n)
    twin = ops.roll(ops.arange(2 * n), -n)
    own = ops.sum(unit * ops.take(unit, twin, axis=0), axis=-1) / temperature
    return ops.mean(ops.logsumexp(similarity, axis=-1) - own)


def hash_loss_pull(codes: Tensor, inputs: Tensor, margin: float = 1.0) -> Tensor:
    """Similarity-weighted squared distance.

    Two windows' similarity is 1 for twins and else the positive part of the cosine of their inputs. Similar
    windows are pulled together; dissimilar ones are pushed until their mean squared bit distance is `margin`.

    Parameters
    ----------
    codes
        (2 n, bits).
    inputs
        The windows, (2 n, any): flattened front-end values.
    """
    n = ops.shape(codes)[0] // 2
    bits = codes.shape[1]
    unit = _unit(inputs - ops.mean(inputs, axis=0, keepdims=True))
    cosine = ops.relu(ops.matmul(unit, ops.transpose(unit)))
    twins = ops.roll(ops.eye(2 * n), n, axis=0)
    others = 1.0 - ops.eye(2 * n)
    similarity = others * ops.maximum(twins, ops.square(cosine))
    norms = ops.sum(ops.square(codes), axis=-1)
    distance = (norms[:, None] + norms[None, :] - 2.0 * ops.matmul(codes, ops.transpose(codes))) / bits
    distance = ops.relu(distance)
    pulled = ops.sum(similarity * distance) / ops.sum(similarity)
    apart = others - similarity
    pushed = ops.sum(apart * ops.square(ops.relu(margin - distance))) / ops.sum(apart)
    return pulled + pushed


def bitwise_entropy_loss(codes: Tensor) -> Tensor:
    """Mean binary entropy, in bits, of each cluster's bit means: 0 where twins agree firmly on every bit."""
    n = ops.shape(codes)[0] // 2
    ones = 0.5 + 0.25 * (codes[:n] + codes[n:])
    p = ops.clip(ones, _TINY, 1.0 - _TINY)
    entropy = -(p * ops.log(p) + (1.0 - p) * ops.log(1.0 - p))
    return ops.mean(entropy) / 0.6931471805599453


def balance_guard(codes: Tensor) -> Tensor:
    """Mean squared bit mean over the batch: 0 where every bit is as often 1 as 0.

    Hash Loss `pull` and the entropy term are both smallest where all codes are equal; this term is largest there.
    """
    return ops.mean(ops.square(ops.mean(codes, axis=0)))


def distillation(codes: Tensor, taught: Tensor) -> Tensor:
    """Mean squared difference from a teacher's codes (2 n, bits) of the same windows, over their mean square.

    1 for codes of nothing but 0. A teacher's values say more than the twins: which seconds are alike, and how sure each
    bit is (Hinton et al. 2015).
    """
    return ops.mean(ops.square(codes - taught)) / (ops.mean(ops.square(taught)) + _TINY)


def over_prefixes(loss: Any, codes: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Mean of `loss` over the beginnings of the codes, so that each beginning is a code of its own."""
    return sum(loss(codes[:, :length]) for length in lengths) / len(lengths)
