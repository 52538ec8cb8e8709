"""Contrastively trained encoders, their embeddings in FAISS.

J. Kim, H. Kim and H. Song, "Neural audio fingerprinting" (KAIST, report), which compares encoders that are trained as
S. Chang et al., "Neural audio fingerprint for high-specific audio retrieval based on contrastive learning", ICASSP
2021, do it: a second and the same second spoilt shall be nearer to each other than to all others of a batch. Each
second's spectrogram, every half second, becomes a vector of length 1; a clip is found where its vectors meet the most
similar ones.

What the report misprints or leaves open: its loss (1) has the pair's similarity in the sum's place, and (2) does not
add up; the standard form of normalised-temperature cross-entropy is used (Chen et al. 2020, eq. 1), with the
temperature of Chang et al. What the networks are is in :mod:`baselines.encoders.networks`, what spoils a second in
:mod:`baselines.encoders.batches`, how a sequence is searched in :mod:`baselines.vectors`. A clip's offset is told to
a fraction of the half seconds, by the parabola through the best place's score and its neighbours'.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from baselines.base import Float32, Match, Tables
from baselines.encoders.features import HOP_S, SAMPLE_RATE, log_mel, windows_of
from baselines.networks import NetworkBaseline, NetworkParameters, check_maker, maker
from baselines.vectors import Vectors

if TYPE_CHECKING:
    import keras

QUIET = 1e-4
"""RMS under which a second has no content, and no vector."""
_AT_ONCE = 128


@dataclass(frozen=True)
class ContrastiveParameters(NetworkParameters):
    """Settings of :class:`Contrastive`.

    Attributes
    ----------
    encoder, projection
        See :data:`baselines.encoders.ENCODERS` and ``PROJECTIONS``.
    values
        Of an embedding: the report's d, 64 or 128.
    weights
        Folder of trained networks; empty: where ``bench train contrastive`` puts them.
    """

    encoder: str = "resnet"
    values: int = 64
    projection: str = "divided"
    weights: str = ""

    @property
    def title(self) -> str:
        """The name of the network's folder."""
        return f"contrastive-{self.encoder}-{self.values}-{self.projection}"

    @property
    def command(self) -> str:
        """What to type to train the network."""
        return (
            f"bench train contrastive --encoder {self.encoder} --values {self.values} --projection {self.projection} "
            "--data FOLDER"
        )


class Contrastive(NetworkBaseline):
    """A trained encoder, and its vectors in a flat FAISS index.

    The report has no threshold: whatever has the highest mean inner product is the answer. The longer a clip is, the
    less a wrong place reaches, so that no one level of it can tell known clips from unknown ones. The score is
    therefore the lead over the best place in any other recording (:attr:`baselines.vectors.Place.lead`), which has
    about the same level at all lengths. A recording that is stored twice has no lead.

    Raises
    ------
    ModelError
        If there is no such network; the message tells how to train it.
    """

    name: ClassVar[str] = "contrastive"
    sample_rate: ClassVar[int] = SAMPLE_RATE
    Parameters: ClassVar[type] = ContrastiveParameters
    parameters: ContrastiveParameters

    def __init__(self, parameters: ContrastiveParameters | None = None) -> None:
        super().__init__(parameters)
        self._embed, self._network = embedding_of(self.parameters), self.parameters.network
        self._vectors = Vectors(self.parameters.values)

    @property
    def macs_per_s(self) -> float:
        """Of the encoder, for a vector every half second."""
        return self._embed.macs / HOP_S

    def add(self, track_id: str, samples: Float32) -> None:
        """Store the vectors of a track under `track_id`."""
        self._vectors.add(self._embed(samples))
        self.tracks.append(track_id)

    def settle(self) -> None:
        """Index what has been added."""
        self._vectors.settle()

    def query(self, samples: Float32) -> Match | None:
        """The best place of a clip of 1 s or more."""
        place = self._vectors.search(self._embed(samples))
        if place is None:
            return None
        return Match(self.tracks[place.track], place.row * HOP_S, place.lead)

    def tables(self) -> Tables:
        """All vectors, where the tracks end, and which network made them."""
        self._vectors.settle()
        return {
            "vectors": self._vectors.stored,
            "ends": self._vectors.ends,
            **maker(self._network),
        }

    def restore(self, tables: Tables) -> None:
        """Take back what :meth:`tables` gave; a `ModelError` if another network made it."""
        check_maker(tables, self._network, self.parameters)
        self._vectors.restore(tables["vectors"], tables["ends"])


class Embedding:
    """Samples at 8 kHz -> vectors (n, values) of length 1 every half second, zero where there is no content.

    Attributes
    ----------
    values, macs
        Of a vector, and the multiplications that one costs.
    """

    def __init__(self, model: keras.Model, values: int) -> None:
        import tensorflow as tf

        from baselines.encoders.networks import macs

        shape = (None, *model.input_shape[1:])
        self._run = tf.function(
            lambda windows: model(windows, training=False),
            input_signature=[tf.TensorSpec(shape, tf.float32)],
            autograph=False,
        )
        self.values, self.macs = values, macs(model)

    def __call__(self, samples: Float32) -> Float32:
        """The vectors; none of a recording under 1 s."""
        return self.of_windows(windows_of(samples))

    def of_windows(self, windows: Float32) -> Float32:
        """The vectors of windows (n, 8000)."""
        out = np.zeros((len(windows), self.values), np.float32)
        for at in range(0, len(windows), _AT_ONCE):
            part = windows[at : at + _AT_ONCE]
            loud: NDArray[np.bool_] = np.sqrt(np.mean(np.square(part), axis=1)) >= QUIET
            if loud.any():
                out[at : at + _AT_ONCE][loud] = self._run(log_mel(part[loud])).numpy()
        return out


def embedding_of(parameters: ContrastiveParameters) -> Embedding:
    """What a trained network makes of samples.

    Raises
    ------
    ModelError
        If it was never trained, or its folder is damaged.
    """
    Contrastive.check(parameters)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from baselines.encoders.training import load

    return Embedding(load(parameters.folder), parameters.values)
