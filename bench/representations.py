"""What systems make of audio, as vectors that can be classified.

A :class:`Representation` turns samples into a vector for each second. Those of samaf are the bits of its hashes, as +1
and -1; those of other systems are what their networks give; means of MFCC, which no training shaped, are what
both are held against. A further system is a function here that gives one more.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from samaf.audio import SAMPLE_RATE
from samaf.encoder import Encoder
from samaf.features import WINDOW_FRAMES, mfcc
from samaf.hamming import unpack

if TYPE_CHECKING:
    from baselines.contrastive import ContrastiveParameters
    from baselines.unet import UNetParameters

Float32 = NDArray[np.float32]
Vectors = NDArray[np.int8] | Float32
"""(n, values): one for each second that has content."""

_RECIPE = 1  # to be raised with every change of what is made of the same samples
_SILENCE = 1e-4  # RMS under which a second has no MFCC worth the name


@dataclass(frozen=True)
class Representation:
    """What one system makes of audio.

    Attributes
    ----------
    label
        For the tables.
    identity
        What tells it from others, as JSON values; with the network, where there is one.
    open
        Loads what it takes; gives what turns samples (n,) at 16 kHz into vectors.
    has_units
        Whether its values have units of their own, so that they must be scaled before distances are taken.
    """

    label: str
    identity: Any
    open: Callable[[], Callable[[Float32], Vectors]]
    has_units: bool = False

    @cached_property
    def key(self) -> str:
        """Its name, good for a folder's, which changes with all that shapes its vectors."""
        shape = json.dumps([_RECIPE, self.identity], sort_keys=True)
        return f"{re.sub(r'[^a-z0-9]+', '-', self.label.lower())}-{hashlib.sha256(shape.encode()).hexdigest()[:16]}"


def of_samaf(bits: int, model: str | None = None) -> Representation:
    """The bits of samaf's hashes, +1 and -1, one hash a second.

    Parameters
    ----------
    bits
        Length of a hash.
    model
        A weights file; None: the one that ships.

    Raises
    ------
    ModelError
        If the file cannot be read, or has no code of that length.
    """
    encoder = Encoder(model, bits=bits)

    def vectors(samples: Float32) -> Vectors:
        if len(samples) < SAMPLE_RATE:
            return np.empty((0, bits), np.int8)
        made = encoder.encode(samples, hop_s=1.0)
        return np.where(unpack(made.hashes[made.valid], bits), 1, -1).astype(np.int8)

    name = f"samaf, {encoder.path.stem}" if model else "samaf"
    return Representation(f"{name}, {bits} bits", ["samaf", encoder.model_id, bits], lambda: vectors)


def of_mfcc() -> Representation:
    """Means of the 13 MFCC of each second, as python_speech_features has them by default."""

    def vectors(samples: Float32) -> Vectors:
        n = len(samples) // SAMPLE_RATE
        seconds = samples[: n * SAMPLE_RATE].reshape(n, SAMPLE_RATE)
        frames = mfcc(samples)[: n * WINDOW_FRAMES]
        means = [frames[k * WINDOW_FRAMES : (k + 1) * WINDOW_FRAMES].mean(axis=0) for k in range(n)]
        loud = np.sqrt(np.mean(np.square(seconds), axis=1)) >= _SILENCE
        return np.array(means, np.float32).reshape(n, frames.shape[1])[loud]

    return Representation("means of MFCC", ["mfcc"], lambda: vectors, has_units=True)


def of_contrastive(parameters: ContrastiveParameters) -> Representation:
    """The embeddings of a contrastively trained encoder, one a second.

    Raises
    ------
    ModelError
        If it was never trained; the message tells how to do that.
    """
    from baselines.contrastive import Contrastive, embedding_of
    from baselines.encoders.features import at_8_khz, windows_of
    from samaf.cli.train import quiet

    Contrastive.check(parameters)

    def opened() -> Callable[[Float32], Vectors]:
        with quiet():
            embed = embedding_of(parameters)

        def vectors(samples: Float32) -> Vectors:
            found = embed.of_windows(windows_of(at_8_khz(samples))[::2])
            return found[found.any(axis=1)]

        return vectors

    shape = f"{parameters.encoder}, {parameters.values} values, {parameters.projection}"
    return Representation(f"contrastive, {shape}", [Contrastive.name, shape, parameters.network], opened)


def of_unet(parameters: UNetParameters) -> Representation:
    """The codes of a U-Net autoencoder, of 4 s each, one a second.

    Raises
    ------
    ModelError
        If it was never trained; the message tells how to do that.
    """
    from baselines.autoencoder.features import clips_of
    from baselines.unet import UNet, code_of
    from samaf.cli.train import quiet

    UNet.check(parameters)

    def opened() -> Callable[[Float32], Vectors]:
        with quiet():
            code = code_of(parameters)

        def vectors(samples: Float32) -> Vectors:
            codes, has_content = code(clips_of(samples, SAMPLE_RATE))
            return codes[has_content]

        return vectors

    shape = f"{parameters.front_end}, {parameters.features}"
    return Representation(f"unet, {shape}", [UNet.name, shape, parameters.network], opened)
