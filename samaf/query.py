"""What of a clip is compared: its hashes, and how much each of their bits is worth."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samaf.background import Background
from samaf.fingerprint import Fingerprint
from samaf.hamming import unpack

MAX_WEIGHT = 3.0
"""Half log-odds of a bit never exceed this: no bit is surer than 99.8 %."""

Float32 = NDArray[np.float32]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Reliability:
    """Log-odds that a bit is right: ``(intercept + slope * confidence) * known ** power``.

    The form of the odds that speech recognisers give to words (logistic in a confidence); `known` is the share of the
    window that lies in the clip.
    """

    intercept: float
    slope: float
    power: float

    def weight(self, confidence: Float32, known: Float32) -> Float32:
        """Half the log-odds, float32 (m, bits), of confidence (m, bits) and known shares (m,)."""
        weight = np.multiply(confidence, np.float32(self.slope / 2), dtype=np.float32)
        weight += np.float32(self.intercept / 2)
        weight *= (known ** np.float32(self.power))[:, None]
        return np.clip(weight, 0.0, MAX_WEIGHT, out=weight)


def _known(print_: Fingerprint) -> Float32:
    """Share of each row's window that lies in the clip, (m,)."""
    return np.ones(len(print_), np.float32) if print_.known is None else print_.known


def signed_weights(print_: Fingerprint, reliability: Reliability) -> Float32:
    """Weight of each bit of a fingerprint, positive where it is set, float32 (m, bits); 0 in invalid rows."""
    known = _known(print_)
    if print_.confidence is None:
        weight = np.ones((len(print_), print_.bits), np.float32) * known[:, None]
    else:
        weight = reliability.weight(print_.confidence, known)
    weight[~print_.valid] = 0.0
    return np.negative(weight, out=weight, where=~unpack(print_.hashes, print_.bits))


@dataclass(frozen=True, eq=False)
class Query:
    """A clip's rows, `hop_s` apart, and what they are worth.

    Attributes
    ----------
    hashes : uint64 (m, w)
    valid : bool (m,)
    confidence : float32 (m, bits), optional
    known : float32 (m,)
        Share of each row's window that lies in the clip.
    signed : float32 (m, bits)
        Weight of each bit, positive where it is set; 0 in invalid rows. The *agreement* of a row with a stored one is
        the sum of these weights, each with the sign that the stored bit has.
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
    confidence: Float32 | None
    known: Float32
    signed: Float32
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
        signed = signed_weights(print_, reliability)
        mean, spread = background.of_rows(signed)
        return cls(
            hashes=print_.hashes,
            valid=print_.valid,
            confidence=print_.confidence,
            known=_known(print_),
            signed=signed,
            expected=np.einsum("mb,mb->m", signed, np.tanh(signed)),
            mean=mean,
            spread=spread,
            hop_s=print_.hop_s,
            reference_hop_s=reference_hop_s,
            start_s=print_.start_s,
            duration_s=print_.duration_s,
        )

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def bits(self) -> int:
        """Of a hash."""
        return self.signed.shape[1]

    @property
    def ratio(self) -> float:
        """Query hops per stored row."""
        return self.reference_hop_s / self.hop_s

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

    def slice(self, part: slice) -> Query:
        """The rows of a part, as a query of its own, in the time of the whole clip."""
        first, stop, _ = part.indices(len(self))
        cut: dict[str, Any] = {
            field.name: value[first:stop]
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        made = replace(self, start_s=self.start_s + first * self.hop_s, **cut)
        for name in ("table", "power"):  # what has been made of the whole need not be made of its parts
            if name in self.__dict__:
                made.__dict__[name] = self.__dict__[name][first:stop]
        return made
