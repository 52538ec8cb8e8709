"""The distortion matrix: what happens to a clip between the record and the query.

A condition has a name: ``clean``, or effects with their values, joined by underscores (``noise5``, ``speed0.95``,
``mp3_32``, ``noise5_reverb``). However they are joined, effects come in the order in which sound meets them: how it
is played, the room, the noise in it, the device, the codec, the file. :func:`parse` reads a name, :func:`missing`
tells why a condition cannot be had here, and :func:`apply` spoils one clip. The effects themselves are in
:mod:`bench.effects`.

Every draw comes from the generator handed in: the same arguments give the same samples.
"""

from __future__ import annotations

import importlib.util
import math
import re
import shutil
from dataclasses import dataclass, replace

import av
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from bench.corpus import Materials
from bench.effects import EFFECTS, Effect, Take, fitted, peak

MATRIX = tuple(
    """
    clean noise20 noise10 noise5 noise0 noise-5 noise-10 white5 white0 pink5 pink0 babble5 babble0
    reverb freeverb50 freeverb90 echo noise5_reverb lowpass4000 lowpass2000 highpass500 bandpass telephone
    speed0.8 speed0.9 speed0.95 speed0.98 speed1.02 speed1.05 speed1.1 speed1.2
    tempo0.8 tempo0.9 tempo0.95 tempo0.98 tempo1.02 tempo1.05 tempo1.1 tempo1.2
    pitch-386 pitch-182 pitch-100 pitch-89 pitch-50 pitch-35 pitch+34 pitch+50 pitch+84 pitch+100 pitch+165 pitch+316
    compand flanger tremolo clip5 clip20 level-20 level-40 truncate_silence reverse
    mp3_128 mp3_64 mp3_32 opus_16 aac_32 gsm rerecord rerecord2 kaist_low kaist_mid kaist_high
    """.split()
)
"""Everything: noise, rooms, filters, time and pitch by 2, 5, 10 and 20 %, dynamics, codecs, chains, presets.

``reverse`` is the negative control: no system should find a clip that runs backwards.
"""

RUN_IN_S = 2.0
"""Seconds of audio before the clip whose reverberation is heard in it."""

_PEAK = 0.95  # no clip goes beyond
_MATERIALS = {
    "noise": ("noises", "recorded noise"),
    "ir": ("rooms", "impulse responses"),
    "voice": ("voices", "speech outside the library"),
}


@dataclass(frozen=True)
class Step:
    """An effect, by its word, with its value, which means nothing where the effect takes none."""

    word: str
    value: float = 0.0

    @property
    def effect(self) -> Effect:
        """The effect itself."""
        return EFFECTS[self.word]

    @property
    def factor(self) -> float:
        """Reference seconds in one second of what comes out."""
        return self.value if self.effect.changes_time else 1.0


@dataclass(frozen=True)
class Condition:
    """A named chain of effects; :func:`parse` makes it.

    Attributes
    ----------
    name
        As it was asked for.
    steps
        The effects in the order in which they are applied.
    """

    name: str
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return self.name

    @property
    def factor(self) -> float:
        """Reference seconds in one second of the clip: speed times tempo."""
        return math.prod(step.factor for step in self.steps)

    @property
    def needs(self) -> tuple[str, ...]:
        """What all its effects need, each once."""
        return tuple(dict.fromkeys(need for step in self.steps for need in step.effect.needs))

    @property
    def draws(self) -> bool:
        """Whether recordings are drawn for it."""
        return not set(self.needs).isdisjoint(_MATERIALS)

    @property
    def run_in_s(self) -> float:
        """Seconds of the reference before the clip that can be heard in it."""
        return RUN_IN_S * self.factor if any(step.effect.rings for step in self.steps) else 0.0

    def clean_samples(self, n: int) -> int:
        """How many samples of the reference make a clip of `n`."""
        return round(n * self.factor)

    def clip_samples(self, n: int) -> int:
        """How long a clip `n` samples of the reference make."""
        return round(n / self.factor)


def known() -> str:
    """All effects and the units of their values, on one line; a value in brackets may be left out."""
    return ", ".join(
        effect.word + (effect.value.shown if effect.value else "") for effect in EFFECTS.values()
    )


def parse(name: str) -> Condition:
    """The condition of that name.

    Raises
    ------
    ValueError
        If it is none, or a value is missing or out of bounds; the message says what there is.

    Examples
    --------
    >>> parse("speed1.05_noise5").factor
    1.05
    """
    if name == "clean":
        return Condition(name, ())
    word = "|".join(sorted(EFFECTS, key=len, reverse=True))
    token = rf"({word})([+-]?\d+(?:\.\d+)?)?"
    if not re.fullmatch(f"{token}(?:_{token})*", name):
        raise ValueError(f"{name}: no such condition; there are clean, {known()}, and these joined by _")
    steps = []
    for match in re.finditer(f"{token}(?:_|$)", name):
        effect, text = EFFECTS[match[1]], match[2]
        if effect.value is None and text is not None:
            raise ValueError(f"{match[1]}{text}: {match[1]} takes no value")
        steps.append(Step(effect.word, effect.value.read(effect.word, text) if effect.value else 0.0))
    return Condition(name, tuple(sorted(steps, key=lambda step: step.effect.stage)))


def missing(condition: Condition, materials: Materials) -> str | None:
    """Why a condition cannot be had here; None where it can."""
    for need in condition.needs:
        if need in _MATERIALS:
            name, words = _MATERIALS[need]
            if not getattr(materials, name):
                return f"the data hold no {words}"
        elif need == "sox":
            if shutil.which("sox") is None:
                return "the program sox is not installed"
            if importlib.util.find_spec("sox") is None:
                return "the Python package sox is not installed"
        elif need not in av.codecs_available:
            return f"PyAV was built without {need}"
    return None


def apply(
    clean: NDArray[np.float32],
    before: NDArray[np.float32],
    condition: Condition,
    materials: Materials,
    rng: Generator,
) -> NDArray[np.float32]:
    """A clip under a condition.

    Parameters
    ----------
    clean : (n,)
        A stretch of the reference, 16 kHz, mono: ``condition.clean_samples`` of the clip's length.
    before : (m,)
        What comes right before it in the reference, ``condition.run_in_s`` of it or what there is; an empty array
        leaves the first moments without the reverberation of what was before.
    condition
        What happens; :func:`missing` must not object.
    materials
        Noise, rooms and voices.
    rng
        Source of every draw.

    Returns
    -------
    ndarray of float32, shape (condition.clip_samples(n),)
        Peak at most 0.95. Its first sample is that of `clean`; where the effects leave too little (truncated
        silence), zeros follow.

    Raises
    ------
    AudioError
        If the material drawn cannot be read, again and again.
    """
    rooms = [i for i, step in enumerate(condition.steps) if step.effect.rings]
    last_room = rooms[-1] if rooms else -1
    run_in = len(before) if rooms else 0
    samples = np.concatenate([before[len(before) - run_in :], clean]).astype(np.float64)
    take = Take(samples, run_in, materials, rng)
    for i, step in enumerate(condition.steps):
        n, run_in = len(take.samples) - take.run_in, round(take.run_in / step.factor)
        samples = fitted(step.effect.act(take, step.value), run_in + round(n / step.factor))
        take = replace(take, samples=samples, run_in=run_in)
        if i == last_room:
            take = replace(take, samples=samples[run_in:], run_in=0)
    clip = fitted(take.samples, condition.clip_samples(len(clean)))
    return (clip * min(1.0, _PEAK / max(peak(clip), 1e-9))).astype(np.float32)
