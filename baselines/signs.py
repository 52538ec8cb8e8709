"""The signs of embeddings as hashes, in the engine's own index and with its own verdict.

The KAIST report names a binary projection into Hamming space as its next step (section 5). Here it is the simplest
one: a bit for each value of an embedding, 1 where it is positive, and the value's magnitude as the bit's confidence.
Stored every half second, 64 values are 128 bits a second. Searched like the engine's hashes: ten a second in a query,
and a calibration of its own, made by the same method on recordings that the network was not trained on. What the
engine does beyond is left out: windows that overhang a clip's ends, which these networks were not trained for, and a
clip's other speeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from baselines.base import Float32
from baselines.contrastive import ContrastiveParameters, Embedding, embedding_of
from baselines.encoders.features import SAMPLE_RATE, WINDOW, at_8_khz
from baselines.indexed import Indexed
from baselines.networks import NetworkBaseline
from samaf import Match
from samaf.atomic import atomic_write
from samaf.audio import read_audio
from samaf.errors import AudioError, ModelError, shown
from samaf.fingerprint import Fingerprint, confidence_of, mark_rows
from samaf.hamming import pack
from samaf.index import Index
from samaf.search import Searcher
from samaf.settings import QUERY_HOP_S
from samaf.verdict import CalibratedModel, Limits

CALIBRATION = "calibration.npz"
"""In a network's folder: what its signs are worth."""


@dataclass(frozen=True)
class SignsParameters(ContrastiveParameters):
    """Settings of :class:`Signs`: the network, and how its signs are stored.

    Attributes
    ----------
    values
        Bits of a hash: 64, 128 or 256.
    hop_s
        Seconds from one stored hash to the next, as the report has them.
    """

    hop_s: float = 0.5


class SignEncoder:
    """Recordings and clips -> fingerprints of an embedding's signs.

    Attributes
    ----------
    bits, model_id
        Of a hash, and of what makes it.
    """

    def __init__(self, embed: Embedding, network: str) -> None:
        self._embed = embed
        self.bits = embed.values
        self.model_id = network

    def encode(self, audio: str | Path | Any, *, hop_s: float) -> Fingerprint:
        """Fingerprint of a recording: a file."""
        return self.of_samples(at_8_khz(read_audio(audio)), hop_s, query=False)

    def encode_query(self, audio: Float32) -> Fingerprint:
        """Fingerprint, with confidence, of a clip: samples at 16 kHz."""
        return self.of_samples(at_8_khz(audio), QUERY_HOP_S, query=True)

    def of_samples(self, samples: Float32, hop_s: float, *, query: bool) -> Fingerprint:
        """The same of samples at 8 kHz.

        Raises
        ------
        AudioError
            If they are less than 1 s.
        """
        if len(samples) < WINDOW:
            raise AudioError(
                f"{len(samples) / SAMPLE_RATE:.3f} s of audio; at least 1 s is needed for a hash"
            )
        samples = np.ascontiguousarray(samples, np.float32)
        hop = round(hop_s * SAMPLE_RATE)
        windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::hop]
        values = self._embed.of_windows(windows)
        valid: NDArray[np.bool_] = values.any(axis=1)
        return Fingerprint(
            hashes=mark_rows(pack(values > 0), valid),
            valid=valid,
            hop_s=hop_s,
            bits=self.bits,
            model_id=self.model_id,
            duration_s=len(samples) / SAMPLE_RATE,
            confidence=confidence_of(values) if query else None,
            known=np.ones(len(values), np.float32) if query else None,
        )


def is_calibrated(parameters: SignsParameters) -> bool:
    """Whether the calibration that a network's folder keeps is of its present weights."""
    try:
        with np.load(parameters.folder / CALIBRATION) as arrays:
            return bool(str(arrays["model_id"]) == parameters.network)
    except (OSError, KeyError, ValueError):
        return False


def check_bits(parameters: SignsParameters) -> None:
    """Refuse embeddings whose signs the index cannot hold."""
    if parameters.values not in (64, 128, 256):
        raise ModelError(f"a hash has 64, 128 or 256 bits, not {parameters.values}; choose other --values")


def calibrate(
    parameters: SignsParameters,
    held_out: Sequence[Sequence[Path]],
    library: Sequence[Path],
    *,
    progress: Callable[[int, int, str], None],
    **options: Any,
) -> None:
    """Find out what a network's signs are worth, and keep it in the network's folder.

    Parameters
    ----------
    held_out, library, options
        See :func:`samaf.model.calibrate.calibration_of`.
    """
    from samaf.model.calibrate import calibration_of

    encoder = SignEncoder(embedding_of(parameters), parameters.network)
    found = calibration_of(encoder, [encoder.bits], held_out, library, progress=progress, **options)
    with atomic_write(parameters.folder / CALIBRATION) as file:
        np.savez(file, model_id=np.array(encoder.model_id), **found)


class Signs(NetworkBaseline, Indexed):
    """The engine's index, search and verdict, on signs of embeddings.

    Raises
    ------
    ModelError
        If there is no such network, or its signs were never calibrated; the message tells how to get them.
    """

    name: ClassVar[str] = "signs"
    sample_rate: ClassVar[int] = SAMPLE_RATE
    Parameters: ClassVar[type] = SignsParameters
    parameters: SignsParameters

    def __init__(self, parameters: SignsParameters | None = None) -> None:
        super().__init__(parameters)
        self.check(self.parameters)
        folder = self.parameters.folder
        self._embed = embedding_of(self.parameters)
        self._encoder = SignEncoder(self._embed, self.parameters.network)
        with np.load(folder / CALIBRATION) as arrays:
            known = {name: values for name, values in arrays.items() if name != "model_id"}
        if not is_calibrated(self.parameters):
            raise ModelError(
                f"{shown(folder)}: was calibrated before it was trained anew; {_remedy(self.parameters)}"
            )
        self._model = CalibratedModel(self._encoder.model_id, known)
        self._searcher: Searcher | None = None

    @classmethod
    def check(cls, parameters: SignsParameters) -> None:
        """Refuse a network that was never trained or calibrated, or whose values make no hash."""
        check_bits(parameters)
        super().check(parameters)
        if not (parameters.folder / CALIBRATION).exists():
            raise ModelError(
                f"{shown(parameters.folder)}: its signs were never calibrated; {_remedy(parameters)}"
            )

    @property
    def macs_per_s(self) -> float:
        """Of the encoder, at the index's hop."""
        return self._embed.macs / self.parameters.hop_s

    def _encode(self, samples: Float32) -> Fingerprint:
        return self._encoder.of_samples(samples, self.parameters.hop_s, query=False)

    def _search(self, samples: Float32) -> list[Match]:
        print_ = self._encoder.of_samples(samples, QUERY_HOP_S, query=True)
        return self._opened().search(print_, limits=Limits(min_probability=0.0, top=1))

    def _index(self) -> Index:
        return self._opened().index

    def _opened(self) -> Searcher:
        if self._searcher is None:
            index = (
                Index.open(self._path, readonly=False)
                if self._path.exists()
                else Index.create(
                    self._path,
                    model_id=self._encoder.model_id,
                    bits=self._encoder.bits,
                    hop_s=self.parameters.hop_s,
                    query_hop_s=QUERY_HOP_S,
                )
            )
            self._searcher = Searcher(index, self._model)
        return self._searcher


def _remedy(parameters: SignsParameters) -> str:
    return (
        f"calibrate them: bench train signs --encoder {parameters.encoder} --values {parameters.values} "
        f"--projection {parameters.projection} --manifest FILE"
    )
