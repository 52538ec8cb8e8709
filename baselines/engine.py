"""samaf itself behind the contract, so that the bench measures it in the same way as the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from baselines.base import Float32
from baselines.indexed import Indexed
from samaf import Match, settings
from samaf.audio import SAMPLE_RATE
from samaf.encoder import Encoder
from samaf.files import digest
from samaf.fingerprint import Fingerprint
from samaf.index import Index
from samaf.library import Library
from samaf.weights import DEFAULT_PATH


@dataclass(frozen=True)
class Parameters:
    """Settings of the engine.

    Attributes
    ----------
    bits
        Length of a hash: 64, 128 or 256.
    hop_s
        Seconds from one stored hash to the next.
    exhaustive
        Compare with every position instead of probing the inverted tables.
    model
        A weights file; empty: the one that ships.
    """

    bits: int = settings.BITS
    hop_s: float = settings.REFERENCE_HOP_S
    exhaustive: bool = False
    model: str = ""


class Samaf(Indexed):
    """The engine: its encoder, and a library with its index."""

    name = "samaf"
    sample_rate = SAMPLE_RATE
    Parameters = Parameters

    def __init__(self, parameters: Parameters | None = None) -> None:
        super().__init__(parameters)
        self._library: Library | None = None
        self._encoder = Encoder(self.parameters.model or None, bits=self.parameters.bits)

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        """With the content of its weights file: trained or calibrated anew, it is another system."""
        return {**super().identity(parameters), "weights": digest(parameters.model or DEFAULT_PATH)}

    @classmethod
    def check(cls, parameters: Any) -> None:
        """Refuse weights that cannot be read, or that have no code of this length."""
        Encoder(parameters.model or None, bits=parameters.bits)

    @property
    def macs_per_s(self) -> float:
        """Of the LSTM and its last layer, at the index's hop."""
        return self._encoder.macs / self.parameters.hop_s

    def _encode(self, samples: Float32) -> Fingerprint:
        return self._encoder.encode(samples, hop_s=self.parameters.hop_s)

    def _search(self, samples: Float32) -> list[Match]:
        return self._opened().search(
            samples, min_probability=0.0, top=1, exhaustive=self.parameters.exhaustive
        )

    def _index(self) -> Index:
        return self._opened().index

    def _opened(self) -> Library:
        if self._library is None:
            self._library = Library(
                self._path,
                writable=True,
                model=self.parameters.model or None,
                bits=self.parameters.bits,
                hop_s=self.parameters.hop_s,
            )
        return self._library
