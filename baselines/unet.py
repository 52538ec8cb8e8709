"""A U-Net autoencoder's code in FAISS.

D. Singh, "Deep learning-based fingerprinting methods for audio representation and search", IRJIET 9(3), 2025: the
innermost layer of an autoencoder of spectrograms, 64 channels of 5 columns, is the fingerprint of 4 s. A recording's
fingerprints, every 2.5 s, go into a flat FAISS index; a clip is named by those nearest to its own.

What the article says, and is done here: whole segments of 4 s that overlap by 1.5 s, nothing for a recording that is
shorter; ``IndexIDMap(IndexFlatL2(320))``; five nearest; songs numbered as they come, so that additions go on from
the highest number; a table of names; a clip shorter than 4 s filled up with zeros.

What is ours: an entry's id tells the segment besides the song, as the contract wants an offset. A clip longer than 4 s,
of which the article takes the first 4 s, has a fingerprint every :data:`QUERY_HOP_S`, and the one that is most like a
stored one decides: the closer one lies to the stored grid, the more it knows, and those that lie far from it know
nothing. Segments without content have no fingerprint.

The network is :mod:`baselines.autoencoder.network`, its input :mod:`baselines.autoencoder.features`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, ClassVar

import faiss
import numpy as np
from numpy.typing import NDArray

from baselines.autoencoder import FEATURES, FRONT_ENDS
from baselines.autoencoder.features import CLIP, clips_of, inputs_of
from baselines.base import Float32, Match, Tables
from baselines.networks import NetworkBaseline, NetworkParameters, check_maker, maker
from baselines.vectors import lead
from samaf.audio import SAMPLE_RATE

SEGMENT_HOP_S = 2.5
"""From one stored segment to the next: 4 s that overlap by 1.5 s."""
QUERY_HOP_S = 0.25
"""From one segment of a clip to the next."""
NEAREST = 5
"""k: stored segments that are looked at for each of a clip's."""
QUIET = 1e-4
"""RMS under which a segment has no content, and no fingerprint."""
_SEGMENTS = 1 << 32
"""An entry's id is the song's number times this, and the segment's."""
_AT_ONCE = 16

Int64 = NDArray[np.int64]

faiss.omp_set_num_threads(1)


@dataclass(frozen=True)
class UNetParameters(NetworkParameters):
    """Settings of :class:`UNet`.

    Attributes
    ----------
    front_end, features
        See :data:`baselines.autoencoder.FRONT_ENDS` and ``FEATURES``; the article's are "paper" and either.
    weights
        Folder of trained networks; empty: where ``bench train unet`` puts them.

    Raises
    ------
    ValueError
        If there is no such front end, or no such features.
    """

    front_end: str = "16k"
    features: str = "normalised"
    weights: str = ""

    def __post_init__(self) -> None:
        for what, value, known in (
            ("front end", self.front_end, FRONT_ENDS),
            ("features", self.features, FEATURES),
        ):
            if value not in known:
                raise ValueError(f"no {what}: {value!r}; there are {', '.join(known)}")

    @property
    def title(self) -> str:
        """The name of the network's folder."""
        return f"unet-{self.front_end}-{self.features}"

    @property
    def command(self) -> str:
        """What to type to train the network."""
        return f"bench train unet --front-end {self.front_end} --features {self.features} --data FOLDER"


class UNet(NetworkBaseline):
    """A trained autoencoder, and its codes in a flat FAISS index.

    The article has no threshold: whatever is nearest is the answer. How alike a clip and its nearest are depends on
    its length, as what is filled up with zeros is like everything; the score is therefore how far the place named
    leads the best one in any other recording (:func:`baselines.vectors.lead`). An offset is as good as the distance to
    the stored grid: a clip of 4 s is told to 1.25 s.

    Raises
    ------
    ModelError
        If there is no such network; the message tells how to train it.
    """

    name: ClassVar[str] = "unet"
    sample_rate: ClassVar[int] = SAMPLE_RATE
    Parameters: ClassVar[type] = UNetParameters
    parameters: UNetParameters

    def __init__(self, parameters: UNetParameters | None = None) -> None:
        super().__init__(parameters)
        self._code, self._network = code_of(self.parameters), self.parameters.network
        self._store = Store(self._code.values)

    @property
    def macs_per_s(self) -> float:
        """Of the encoder, for a code every 2.5 s."""
        return self._code.macs / SEGMENT_HOP_S

    def add(self, track_id: str, samples: Float32) -> None:
        """Store the fingerprints of a track under `track_id`."""
        codes, has_content = self._code(clips_of(samples, round(SEGMENT_HOP_S * SAMPLE_RATE)))
        self._store.add(len(self.tracks), np.flatnonzero(has_content), codes[has_content])
        self.tracks.append(track_id)

    def query(self, samples: Float32) -> Match | None:
        """Where the segment lies that is most like a stored one."""
        filled = np.pad(samples, (0, max(0, CLIP - len(samples))))
        codes, has_content = self._code(clips_of(filled, round(QUERY_HOP_S * SAMPLE_RATE)))
        starts_s = QUERY_HOP_S * np.arange(len(codes))
        place = self._store.place(codes[has_content], starts_s[has_content])
        if place is None:
            return None
        song, offset_s, alike, others = place
        return Match(self.tracks[song], offset_s, lead(alike, others))

    def tables(self) -> Tables:
        """All fingerprints, their ids, and which network made them."""
        return {"codes": self._store.codes, "ids": self._store.ids, **maker(self._network)}

    def restore(self, tables: Tables) -> None:
        """Take back what :meth:`tables` gave; a `ModelError` if another network made it."""
        check_maker(tables, self._network, self.parameters)
        self._store.restore(tables["codes"], tables["ids"])


class Store:
    """Codes of songs' segments in FAISS.

    Parameters
    ----------
    values
        Length of a code.
    """

    def __init__(self, values: int) -> None:
        self._flat = faiss.IndexFlatL2(values)
        self._index = faiss.IndexIDMap(self._flat)

    @property
    def codes(self) -> Float32:
        """All codes, (n, values)."""
        return faiss.vector_to_array(self._flat.codes).view(np.float32).reshape(-1, self._flat.d)

    @property
    def ids(self) -> Int64:
        """The song and segment of each code, (n,)."""
        return faiss.vector_to_array(self._index.id_map)

    def add(self, song: int, segments: Int64, codes: Float32) -> None:
        """Codes (n, values) of some segments (n,) of a song."""
        if len(codes):
            self._index.add_with_ids(np.ascontiguousarray(codes), song * _SEGMENTS + segments)

    def restore(self, codes: Float32, ids: Int64) -> None:
        """Take back what :attr:`codes` and :attr:`ids` were."""
        self._index.reset()
        if len(codes):
            self._index.add_with_ids(np.ascontiguousarray(codes, np.float32), ids)

    def nearest(self, codes: Float32) -> tuple[Float32, Int64, Int64]:
        """How alike the five nearest of each code (m, values) are, their songs and segments, each (m, k <= 5).

        Two codes are as alike as 1 less half their squared distance over the code's own squared length: as instance
        normalisation gives all codes about the same length, this is their cosine.
        """
        distances, ids = self._index.search(np.ascontiguousarray(codes), min(NEAREST, self._index.ntotal))
        lengths = np.maximum(np.sum(np.square(codes), axis=1, keepdims=True), np.float32(1e-12))
        alike = np.maximum(np.float32(1.0) - distances / (2 * lengths), np.float32(0.0))
        return alike, ids // _SEGMENTS, ids % _SEGMENTS

    def place(self, codes: Float32, starts_s: NDArray[np.float64]) -> tuple[int, float, float, float] | None:
        """Where a clip lies by that of its segments which is most like a stored one.

        Parameters
        ----------
        codes : float32 (m, values)
        starts_s : float (m,)
            Where each segment begins in the clip.

        Returns
        -------
        song, offset_s, alike, others
            None where there is nothing to compare. `others` is how alike any segment and one of any other song are at
            most.
        """
        if not len(codes) or not self._index.ntotal:
            return None
        alike, songs, segments = self.nearest(codes)
        row, column = np.unravel_index(int(alike.argmax()), alike.shape)
        song = int(songs[row, column])
        elsewhere = alike[songs != song]
        # What was not looked at is at most as like a code as the last that was.
        others = float((elsewhere if len(elsewhere) else alike[:, -1]).max())
        offset_s = SEGMENT_HOP_S * float(segments[row, column]) - float(starts_s[row])
        return song, offset_s, float(alike[row, column]), others


class Code:
    """Clips (n, 64000) at 16 kHz -> codes (n, values), and whether each clip has content, bool (n,).

    Attributes
    ----------
    model
        The whole autoencoder.
    values, macs
        Of a code, and the multiplications that one costs.
    """

    def __init__(self, model: Any, parameters: UNetParameters) -> None:
        import tensorflow as tf

        from baselines.encoders.networks import macs

        encoder = model.get_layer("encoder")
        shape = tf.TensorSpec((None, *encoder.input_shape[1:]), tf.float32)
        self._run = tf.function(
            lambda x: encoder(x, training=False)[-1], input_signature=[shape], autograph=False
        )
        self._parameters = parameters
        self.model = model
        self.values, self.macs = int(np.prod(encoder.output_shape[-1][1:])), macs(encoder)

    def __call__(self, clips: Float32) -> tuple[Float32, NDArray[np.bool_]]:
        """The codes; zero where there is no content."""
        codes, has_content = np.zeros((len(clips), self.values), np.float32), np.zeros(len(clips), np.bool_)
        for at in range(0, len(clips), _AT_ONCE):
            part = clips[at : at + _AT_ONCE]
            loud = np.sqrt(np.mean(np.square(part), axis=1)) >= QUIET
            if loud.any():
                found = self._run(self.inputs(part[loud])[..., None]).numpy().reshape(-1, self.values)
                codes[at : at + _AT_ONCE][loud] = found
            has_content[at : at + _AT_ONCE] = loud
        return codes, has_content

    def inputs(self, clips: Float32) -> Float32:
        """What the network is fed, (n, 64, 376)."""
        return inputs_of(clips, self._parameters.front_end, self._parameters.features)


def code_of(parameters: UNetParameters) -> Code:
    """What a trained network makes of clips.

    Raises
    ------
    ModelError
        If it was never trained, or its folder is damaged.
    """
    UNet.check(parameters)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from baselines.autoencoder.training import load

    return Code(load(parameters.folder), parameters)
