"""What of a clip is compared: its hashes, and how much each of their bits is worth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samaf.background import Background
from samaf.fingerprint import Fingerprint
from samaf.hamming import frozen, kernel

MAX_WEIGHT = 3.0
"""Half log-odds of a bit never exceed this: no bit is surer than 99.8 %."""
PAGE = 2048
"""Rows whose weights are made at once, and kept: a clip's of some minutes. Twelve hours' would take 200 MB."""

Float32 = NDArray[np.float32]
Words = NDArray[np.uint64]
Rows = slice | NDArray[np.int64]


@dataclass(frozen=True)
class Reliability:
    """Log-odds that a bit is right: ``(intercept + slope * confidence) * known ** power``.

    The form of the odds that speech recognisers give to words (logistic in a confidence); `known` is the share of the
    window that lies in the clip.
    """

    intercept: float
    slope: float
    power: float

    def weight(self, confidence: NDArray[np.float16], known: Float32) -> Float32:
        """Half the log-odds, float32 (m, bits), of confidence (m, bits) and known shares (m,)."""
        # Without its sign, a float16 has the bits of a float32 that is smaller by a power of two; numpy itself
        # takes six times as long to convert it.
        values = np.left_shift(confidence.view(np.uint16) << 1, 12, dtype=np.uint32).view(np.float32)
        _weigh(values, known ** np.float32(self.power), self.intercept / 2, self.slope / 2)
        return values


@kernel
def _weigh(values, scale, intercept, slope):  # type: ignore[no-untyped-def]
    """Turn confidence into weights in its place."""
    a, b = np.float32(intercept), np.float32(slope)
    unit, least, most = np.float32(2.0**112), np.float32(0.0), np.float32(MAX_WEIGHT)
    for i in range(values.shape[0]):
        factor = scale[i]
        for k in range(values.shape[1]):
            values[i, k] = min(max((values[i, k] * unit * b + a) * factor, least), most)


@kernel
def _sign(weight, hashes, valid):  # type: ignore[no-untyped-def]
    """Make the weights of bits that are not set negative, and those of invalid rows 0."""
    for i in range(weight.shape[0]):
        for w in range(hashes.shape[1]):
            word = hashes[i, w]
            for k in range(64):
                bit = np.float32(np.int32((word >> np.uint64(k)) & np.uint64(1)))
                weight[i, 64 * w + k] *= (bit + bit - np.float32(1.0)) * np.float32(valid[i])


def _known(print_: Fingerprint | Query) -> Float32:
    """Share of each row's window that lies in the clip, (m,)."""
    return np.ones(len(print_), np.float32) if print_.known is None else print_.known


def signed_weights(
    print_: Fingerprint | Query, reliability: Reliability, rows: Rows = slice(None)
) -> Float32:
    """Weight of each bit of some rows, positive where it is set, float32 (k, bits); 0 in invalid rows."""
    hashes, known = print_.hashes[rows], _known(print_)[rows]
    if print_.confidence is None:
        weight = np.ones((len(hashes), print_.bits), np.float32) * known[:, None]
    else:
        weight = reliability.weight(print_.confidence[rows], known)
    _sign(weight, frozen(hashes), frozen(print_.valid[rows]))
    return weight


@dataclass(frozen=True, eq=False)
class Query:
    """A clip's rows, `hop_s` apart, and what they are worth.

    Attributes
    ----------
    hashes : uint64 (m, w)
    valid : bool (m,)
    confidence : float16 (m, bits), optional
        None where all bits count alike.
    known : float32 (m,)
        Share of each row's window that lies in the clip.
    reliability : Reliability
        What makes weights of confidence.
    expected : float32 (m,)
        Agreement to be expected with the recording itself: bits are right as often as their weights say.
    mean, spread : float32 (m,)
        Of each row's agreement with unrelated audio.
    hop_s, reference_hop_s : float
        Seconds between rows, and between stored rows.
    start_s : float
        Where row 0 starts in the clip.
    duration_s : float
        Of the clip.
    """

    hashes: NDArray[np.uint64]
    valid: NDArray[np.bool_]
    confidence: NDArray[np.float16] | None
    known: Float32
    reliability: Reliability
    expected: Float32
    mean: Float32
    spread: Float32
    hop_s: float
    reference_hop_s: float
    start_s: float
    duration_s: float

    @classmethod
    def of(
        cls, print_: Fingerprint, reliability: Reliability, background: Background, reference_hop_s: float
    ) -> Query:
        """The query that a fingerprint makes against an index."""
        m = len(print_)
        expected, mean, spread = np.zeros((3, m), np.float32)
        made = cls(
            hashes=print_.hashes,
            valid=print_.valid,
            confidence=print_.confidence,
            known=_known(print_),
            reliability=reliability,
            expected=expected,
            mean=mean,
            spread=spread,
            hop_s=print_.hop_s,
            reference_hop_s=reference_hop_s,
            start_s=print_.start_s,
            duration_s=print_.duration_s,
        )
        for page in (slice(a, a + PAGE) for a in range(0, m, PAGE)):
            signed = made.weights(page)
            expected[page] = np.einsum("mb,mb->m", signed, np.tanh(signed))
            mean[page], spread[page] = background.of_rows(signed)
        return made

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def bits(self) -> int:
        """Of a hash."""
        return 64 * self.hashes.shape[1]

    @property
    def ratio(self) -> float:
        """Query hops per stored row."""
        return self.reference_hop_s / self.hop_s

    def weights(self, rows: Rows) -> Float32:
        """Weight of each bit of some rows, positive where it is set, float32 (k, bits); 0 in invalid rows.

        The *agreement* of a row with a stored one is the sum of its weights, each with the sign that the stored bit
        has.
        """
        return self.signed[rows] if len(self) <= PAGE else signed_weights(self, self.reliability, rows)

    @cached_property
    def signed(self) -> Float32:
        """The :meth:`weights` of all rows, which then stay; for the rows of a clip or of a section."""
        return signed_weights(self, self.reliability)

    @cached_property
    def table(self) -> Float32:
        """Agreement of each row with each value of each four stored bits, float32 (m, bits / 4, 16)."""
        value = np.arange(16)
        signs = np.where((value[:, None] >> np.arange(4)) & 1, 1.0, -1.0).astype(np.float32)
        return np.ascontiguousarray(self.signed.reshape(len(self), self.bits // 4, 4) @ signs.T)

    @cached_property
    def power(self) -> Float32:
        """Sum of the squares of each row's weights, (m,): what random bits make its agreement vary by."""
        return np.einsum("mb,mb->m", self.signed, self.signed)

    def pages(self) -> Iterator[tuple[int, Query]]:
        """(first row, part) of each of the parts that a long query is taken in; a clip is one as it is."""
        if len(self) <= PAGE:
            yield 0, self
        else:
            for a in range(0, len(self), PAGE):
                yield a, self.slice(slice(a, a + PAGE))

    def slice(self, part: slice) -> Query:
        """The rows of a part, as a query of its own, in the time of the whole clip."""
        first, stop, _ = part.indices(len(self))
        cut: dict[str, Any] = {
            field.name: value[first:stop]
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        made = replace(self, start_s=self.start_s + first * self.hop_s, **cut)
        for name in (
            "signed",
            "table",
            "power",
        ):  # what has been made of the whole need not be made of its parts
            if name in self.__dict__:
                made.__dict__[name] = self.__dict__[name][first:stop]
        return made
