"""Measures a trained encoder's null model: bit reliability, background hashes, the tail of chance agreement.

Everything comes from the rendered corpus of the training: bit reliability from held-out twins, the background from
clean training chunks, the tail from held-out queries (clean and distorted) against clean training
chunks, none of which they can truly match.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from samaf.encoder import Network
from samaf.errors import ModelError
from samaf.features import FRAMES_PER_SECOND, FRONT_ENDS, WINDOW_FRAMES
from samaf.hamming import pack
from samaf.model.corpus import CHUNK_FRAMES, Corpus
from samaf.model.twins import Twins
from samaf.significance import BACKGROUND_HOP_S, NullModel
from samaf.weights import Weights

BACKGROUND_RUNS = 128
TWINS = 4096
TAIL_ROWS = (1, 2, 4, 8, 16)
TAIL_LEVELS = np.arange(-1.0, -4.01, -0.5)
"""Shares measured, as base-10 logarithms; rarer ones would be those of loops that pieces truly share."""
REFERENCE_CHUNKS = 300
QUERY_CHUNKS = 48
QUERY_RENDERINGS = 2
FEWEST = 10
"""Alignments that must reach a level for it to count as measured."""
_Z_LOW, _Z_HIGH, _Z_STEP = -10.0, 40.0, 0.02

Float32 = NDArray[np.float32]


def calibrate(
    weights: Weights, corpus: Corpus, training: NDArray[np.int64], held_out: NDArray[np.int64], seed: int = 0
) -> Weights:
    """The same weights with a measured null model.

    Parameters
    ----------
    corpus, training, held_out
        The corpus the weights were trained on, and its chunks as they were split.
    """
    rng = np.random.default_rng([seed, 99])
    network = Network(weights, weights.bits[-1])
    null: dict[str, NDArray] = {"agreement": _agreement(network, corpus, held_out, rng)}
    hop = round(BACKGROUND_HOP_S * FRAMES_PER_SECOND)
    runs = [_chunk(network, corpus, i, 0, hop) for i in rng.permutation(training)[:BACKGROUND_RUNS]]
    null["background"] = np.stack([pack(run > 0) for run in _of_one_length(runs)])
    null["tail_rows"], null["tail_levels"] = np.array(TAIL_ROWS), TAIL_LEVELS
    null |= {f"tail_z_{bits}": np.zeros((len(TAIL_ROWS), len(TAIL_LEVELS))) for bits in weights.bits}
    references = rng.permutation(training)[:REFERENCE_CHUNKS]
    stored = _of_one_length([_chunk(network, corpus, i, 0, FRAMES_PER_SECOND) > 0 for i in references])
    queries = [
        _chunk(network, corpus, i, k, FRAMES_PER_SECOND)
        for i in rng.permutation(held_out)[:QUERY_CHUNKS]
        for k in range(min(QUERY_RENDERINGS, corpus.frames.shape[1]))
    ]
    for bits in weights.bits:
        model = NullModel(replace(weights, null=null), bits)
        null[f"tail_z_{bits}"] = _tail(model, queries, np.stack(stored)[:, :, :bits])
    return replace(weights, null=null)


def _of_one_length(runs: list[NDArray]) -> list[NDArray]:
    """The longer half of the runs or more, cut to one length."""
    length = sorted(map(len, runs))[len(runs) // 2]
    return [run[:length] for run in runs if len(run) >= length]


def _chunk(network: Network, corpus: Corpus, chunk: int, rendering: int, hop_frames: int) -> Float32:
    """Activations of a chunk's windows, every `hop_frames`."""
    frames = corpus.frames[chunk, rendering].astype(np.float32)
    length = min(CHUNK_FRAMES, int(corpus.n_frames[chunk] / corpus.factors[chunk, rendering]))
    at = np.arange(0, length - WINDOW_FRAMES + 1, hop_frames)[:, None] + np.arange(WINDOW_FRAMES)
    windows, _ = FRONT_ENDS[corpus.preset.front_end][1](frames[at])
    return network(windows.reshape(len(at), corpus.preset.n_steps, corpus.preset.n_inputs))


def _agreement(
    network: Network, corpus: Corpus, chunks: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Log-odds that a bit is right, as a line over its confidence: (intercept, slope)."""
    windows, _ = Twins(corpus, chunks, plain=True).draw(TWINS, rng)
    activation = network(windows)
    confidence = np.abs(activation[TWINS:]).ravel()
    right = ((activation[:TWINS] > 0) == (activation[TWINS:] > 0)).ravel()
    order = np.argsort(confidence)
    groups = np.array_split(order, 40)
    middle = np.array([confidence[g].mean() for g in groups])
    share = np.clip([right[g].mean() for g in groups], 0.01, 0.99)
    slope, intercept = np.polyfit(middle, np.log(share / (1 - share)), 1)
    return np.array([intercept, slope])


def _tail(model: NullModel, queries: list[Float32], stored: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The z that each share of :data:`TAIL_LEVELS` of unrelated alignments reaches, (rows, levels)."""
    chunks, length, bits = stored.shape
    signs = np.where(stored, np.float32(1), np.float32(-1)).reshape(chunks * length, bits)
    edges = np.arange(_Z_LOW, _Z_HIGH + _Z_STEP, _Z_STEP)
    counts = np.zeros((len(TAIL_ROWS), len(edges) - 1))
    for activation in queries:
        hashes = pack(activation[:, :bits] > 0)
        signed = model.weigh(hashes, np.abs(activation[:, :bits]), np.ones(len(hashes), bool))
        agreement = (signs @ signed.T).reshape(chunks, length, len(signed))
        for j, n in enumerate(TAIL_ROWS):
            places = max(0, length - n + 1)
            for start in range(0, len(signed) - n + 1, max(1, n // 2)):
                total = np.zeros((chunks, places), np.float32)
                for k in range(n):
                    total += agreement[:, k : k + places, start + k]
                mean, spread = model.moments(signed[start : start + n], 1.0)
                counts[j] += np.histogram(np.clip((total - mean) / spread, _Z_LOW, _Z_HIGH - 1), edges)[0]
    out = np.empty((len(TAIL_ROWS), len(TAIL_LEVELS)))
    for j in range(len(TAIL_ROWS)):
        reached = np.cumsum(counts[j][::-1])[::-1]
        known = np.flatnonzero(reached[0] * 10.0**TAIL_LEVELS >= FEWEST)
        if not len(known):
            if j == 0:
                raise ModelError("too little audio to calibrate on; train on half an hour or more")
            out[j] = out[j - 1]  # longer stretches have no thicker tail than shorter ones
            continue
        share = np.maximum(reached, 0.5) / reached[0]
        out[j] = np.interp(-TAIL_LEVELS, -np.log10(share), edges[:-1])
        last = known[-1]
        out[j, last:] = out[j, last] * TAIL_LEVELS[last:] / TAIL_LEVELS[last]  # thicker than any tail of sums
    return out
