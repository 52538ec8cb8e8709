"""What may happen to a clip on its way: noise, rooms, filters, time and pitch, dynamics, codecs.

An :class:`Effect` is a word, perhaps with a number, and a function from a :class:`Take` to samples; :data:`EFFECTS`
holds them all, and a new one is a function under ``@_effect``. :mod:`bench.degrade` chains them, and
:mod:`bench.clip_cache` keeps what comes out: a change of what an effect does needs a new number there.

Every draw comes from the take's generator, and SoX runs without dither: the same take gives the same samples.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import soundfile
import soxr
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, sosfilt

from bench.corpus import Materials, Recording
from samaf.audio import SAMPLE_RATE, read_audio
from samaf.errors import AudioError

if TYPE_CHECKING:
    from sox import Transformer

_IMPULSE_S = 4.0  # impulse responses are cut there
_HEADROOM = 0.7  # peak before a codec
_SOX_PEAK = 0.25  # peak before SoX, which clips at 1
_SILENCE = 1e-5  # RMS under which a stretch of noise is drawn again
_DRAWS = 20

Samples = NDArray[np.float64]


class Stage(IntEnum):
    """Where on the way of the sound an effect stands."""

    PLAYED = 0
    ROOM = 1
    NOISE = 2
    DEVICE = 3
    CODED = 4
    FILE = 5


@dataclass(frozen=True)
class Value:
    """The number in an effect's name: unit, bounds, and what holds where it is left out (None: it may not be)."""

    unit: str
    low: float
    high: float
    default: float | None = None
    whole: bool = False

    @property
    def shown(self) -> str:
        """As it stands in a list of names: in brackets where it may be left out."""
        return f"<{self.unit}>" if self.default is None else f"[{self.unit}]"

    def read(self, name: str, text: str | None) -> float:
        """The number in `text`; ValueError, naming the effect, where it does not do."""
        if text is None:
            if self.default is None:
                raise ValueError(f"{name}: needs a value ({self.unit}), such as {name}{self.high:g}")
            return self.default
        value = float(text)
        if not self.low <= value <= self.high or (self.whole and value % 1):
            whole = "a whole number " if self.whole else ""
            raise ValueError(f"{name}{text}: must be {whole}from {self.low:g} to {self.high:g} ({self.unit})")
        return value


@dataclass(frozen=True)
class Take:
    """A clip on its way, and what effects need.

    Attributes
    ----------
    samples
        The clip, with `run_in` samples of what came before it.
    run_in
        Where the clip begins.
    materials, rng
        Recordings, and the source of every draw.
    """

    samples: Samples
    run_in: int
    materials: Materials
    rng: Generator

    @property
    def rms(self) -> float:
        """Of the clip alone."""
        return rms(self.samples[self.run_in :])

    def then(self, samples: Samples) -> Take:
        """The same take with other samples."""
        return replace(self, samples=samples)


Act = Callable[[Take, float], Samples]


@dataclass(frozen=True)
class Effect:
    """One distortion.

    Attributes
    ----------
    word
        Its name, without the value.
    act
        What it does to a take.
    stage
        Its place among others.
    value
        The number that follows the word; None: there is none.
    needs
        Programs (``sox``), encoders (``aac``) and materials (``noise``, ``ir``, ``voice``) without which it cannot be.
    rings
        What came before the clip is heard in it.
    changes_time
        Its value is the number of reference seconds in one second of the clip.
    """

    word: str
    act: Act
    stage: Stage
    value: Value | None = None
    needs: tuple[str, ...] = ()
    rings: bool = False
    changes_time: bool = False


EFFECTS: dict[str, Effect] = {}
"""All effects by their words."""


def _effect(
    word: str,
    stage: Stage,
    value: Value | None = None,
    *,
    needs: tuple[str, ...] = (),
    rings: bool = False,
    changes_time: bool = False,
) -> Callable[[Act], Act]:
    """Enter a function into :data:`EFFECTS`."""

    def enter(act: Act) -> Act:
        EFFECTS[word] = Effect(word, act, stage, value, needs, rings, changes_time)
        return act

    return enter


# -- tools of the effects ----------------------------------------------------------------------------------------------


def rms(x: Samples) -> float:
    """Root mean square; 0 of nothing."""
    return float(np.sqrt(np.mean(np.square(x)))) if len(x) else 0.0


def peak(x: Samples) -> float:
    """Largest absolute value; 0 of nothing."""
    return float(np.abs(x).max(initial=0.0))


def fitted(x: Samples, n: int) -> Samples:
    """The first `n` samples, zeros where there are fewer."""
    return x[:n] if len(x) >= n else np.pad(x, (0, n - len(x)))


def _as_loud(take: Take, samples: Samples) -> Samples:
    """`samples` with the loudness of the take's clip."""
    return samples * (take.rms / max(rms(samples[take.run_in : len(take.samples)]), 1e-9))


def _mixed(take: Take, noise: Samples, snr: float) -> Samples:
    """The take with noise `snr` dB under it, both measured over the clip."""
    level = max(rms(noise[take.run_in :]), 1e-9)
    return take.samples + noise * (take.rms / level * 10 ** (-snr / 20))


def _drawn(
    recordings: Sequence[Recording], rng: Generator, read: Callable[[Recording], Samples], skip: int = 0
) -> Samples:
    """What `read` makes of a recording drawn; another one if it cannot be read, or is silent from `skip` on."""
    for _ in range(_DRAWS):
        try:
            samples = read(recordings[int(rng.integers(len(recordings)))])
        except AudioError:
            continue
        if rms(samples[skip:]) > _SILENCE:
            return samples
    raise AudioError(
        f"{recordings[0].path.parent}: {_DRAWS} draws gave nothing but silence and damaged files; replace them"
    )


def _excerpt(recording: Recording, n: int, rng: Generator) -> Samples:
    """`n` samples from a random place, repeated where the recording is shorter."""
    start = int(rng.integers(max(int(recording.duration_s * SAMPLE_RATE) - n, 0) + 1))
    samples = recording.read(start / SAMPLE_RATE, (start + n) / SAMPLE_RATE).astype(np.float64)
    return samples if len(samples) == n else np.roll(np.resize(samples, n), int(rng.integers(n)))


def _sox(samples: Samples, add: Callable[[Transformer], object], rate: int = SAMPLE_RATE) -> Samples:
    """Through the effects that `add` gives a SoX transformer."""
    import sox  # at its import it looks for the program, and complains where there is none

    logging.getLogger("sox").setLevel(logging.ERROR)  # it recommends other effects than the one asked for
    transformer = sox.Transformer()
    transformer.set_globals(dither=False, verbosity=1)
    add(transformer)
    scale = peak(samples) / _SOX_PEAK or 1.0
    heard = transformer.build_array(input_array=(samples / scale).astype(np.float32), sample_rate_in=rate)
    return heard.astype(np.float64) * scale


def _through_file(samples: Samples, name: str, write: Callable[[Path, NDArray[np.float32]], None]) -> Samples:
    """What is heard from a file of the samples; its decoder takes the codec's delay away."""
    scale = max(1.0, peak(samples) / _HEADROOM)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path, (samples / scale).astype(np.float32))
        heard = read_audio(path)
    return fitted(heard.astype(np.float64), len(samples)) * scale


def write_encoded(path: Path, samples: NDArray[np.float32], rate: int, codec: str, kbit: float) -> None:
    """Write samples, float32 (n,), with an encoder of FFmpeg, at so many kbit/s."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = round(1000 * kbit)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def _encoded(samples: Samples, codec: str, name: str, kbit: float) -> Samples:
    """Through an encoder of FFmpeg, at 16 kHz."""
    return _through_file(
        samples, name, lambda path, heard: write_encoded(path, heard, SAMPLE_RATE, codec, kbit)
    )


def _at_8_khz(samples: Samples, subtype: str) -> Samples:
    """Through a narrow-band speech codec of libsndfile."""

    def write(path: Path, heard: NDArray[np.float32]) -> None:
        soundfile.write(path, soxr.resample(heard, SAMPLE_RATE, 8000), 8000, subtype=subtype)

    return _through_file(samples, "clip.wav", write)


def _filtered(samples: Samples, hz: float | Sequence[float], kind: str) -> Samples:
    """Through a Butterworth filter of order 4, as a device would: causal."""
    return sosfilt(butter(4, hz, kind, fs=SAMPLE_RATE, output="sos"), samples)


# -- how it is played --------------------------------------------------------------------------------------------------

_FACTOR = Value("factor", 0.5, 2.0)


@_effect("speed", Stage.PLAYED, _FACTOR, changes_time=True)
def _speed(take: Take, factor: float) -> Samples:
    """Time and pitch together, as a record that turns faster."""
    return soxr.resample(take.samples, SAMPLE_RATE * factor, SAMPLE_RATE)


@_effect("tempo", Stage.PLAYED, _FACTOR, needs=("sox",), changes_time=True)
def _tempo(take: Take, factor: float) -> Samples:
    return _sox(take.samples, lambda transformer: transformer.tempo(factor))


@_effect("pitch", Stage.PLAYED, Value("cents", -1200, 1200), needs=("sox",))
def _pitch(take: Take, cents: float) -> Samples:
    return _sox(take.samples, lambda transformer: transformer.pitch(cents / 100))


# -- the room ----------------------------------------------------------------------------------------------------------


@_effect("reverb", Stage.ROOM, needs=("ir",), rings=True)
def _reverb(take: Take, _: float) -> Samples:
    """A measured impulse response, the direct sound at delay 0."""

    def response(recording: Recording) -> Samples:
        heard = recording.read().astype(np.float64)
        return heard[int(np.argmax(np.abs(heard))) :][: round(_IMPULSE_S * SAMPLE_RATE)]

    room = _drawn(take.materials.rooms, take.rng, response)
    return _as_loud(take, fftconvolve(take.samples, room)[: len(take.samples)])


@_effect("freeverb", Stage.ROOM, Value("%", 0, 100, 50), needs=("sox",), rings=True)
def _freeverb(take: Take, reverberance: float) -> Samples:
    """SoX's ``reverb``, a Freeverb, with so much reverberance."""
    return _as_loud(take, _sox(take.samples, lambda transformer: transformer.reverb(reverberance)))


@_effect("echo", Stage.ROOM, Value("ms", 1, 2000, 150), needs=("sox",), rings=True)
def _echo(take: Take, delay_ms: float) -> Samples:
    """One echo, 4 dB under the sound."""
    return _sox(take.samples, lambda transformer: transformer.echo(0.8, 0.9, 1, [delay_ms], [0.5]))


@dataclass(frozen=True)
class Kaist:
    """A level of distortion of the KAIST report on neural audio fingerprints (its table 3).

    Attributes
    ----------
    noise
        Largest ratio of the noise's standard deviation to the signal's, which the report calls "SNR"; the smallest
        is 0. Not decibels: 0.3 is 10.5 dB.
    delay_ms
        Bounds of the delay of a copy, which is half as strong.
    reverberance
        In percent, of SoX's ``reverb``.
    room_size
        Bounds, in percent.
    """

    noise: float
    delay_ms: tuple[float, float]
    reverberance: float
    room_size: tuple[float, float]


KAIST = {
    "low": Kaist(0.2, (50, 60), 61, (50, 60)),
    "mid": Kaist(0.3, (80, 90), 91, (90, 91)),
    "high": Kaist(0.4, (200, 300), 100, (99, 100)),
}
"""The report's three levels."""


def kaist(
    samples: Samples, loudness: float, level: Kaist, rng: Generator, rate: int = SAMPLE_RATE
) -> Samples:
    """White noise by a ratio to the loudness, a delayed copy, SoX's reverb, in this order."""
    ratio = rng.uniform(0.0, level.noise)
    spoilt = samples + ratio * loudness * rng.standard_normal(len(samples))
    delay = round(rng.uniform(*level.delay_ms) / 1000 * rate)
    spoilt[delay:] += 0.5 * spoilt[:-delay]
    room_size = rng.uniform(*level.room_size)
    return _sox(spoilt, lambda t: t.reverb(level.reverberance, room_scale=room_size), rate)


def _kaist(take: Take, _: float, *, level: Kaist) -> Samples:
    return _as_loud(take, kaist(take.samples, take.rms, level, take.rng))


for _name in KAIST:
    _effect(f"kaist_{_name}", Stage.ROOM, needs=("sox",), rings=True)(partial(_kaist, level=KAIST[_name]))


# -- noise -------------------------------------------------------------------------------------------------------------

_SNR = Value("dB", -40, 60)
_VOICES = 6


@_effect("noise", Stage.NOISE, _SNR, needs=("noise",))
def _noise(take: Take, snr: float) -> Samples:
    """Recorded noise."""
    n, rng = len(take.samples), take.rng
    noise = _drawn(take.materials.noises, rng, lambda item: _excerpt(item, n, rng), take.run_in)
    return _mixed(take, noise, snr)


@_effect("white", Stage.NOISE, _SNR)
def _white(take: Take, snr: float) -> Samples:
    return _mixed(take, take.rng.standard_normal(len(take.samples)), snr)


@_effect("pink", Stage.NOISE, _SNR)
def _pink(take: Take, snr: float) -> Samples:
    """3 dB less per octave, from 20 Hz up."""
    n = len(take.samples)
    spectrum = np.fft.rfft(take.rng.standard_normal(n))
    spectrum /= np.sqrt(np.maximum(np.fft.rfftfreq(n, 1 / SAMPLE_RATE), 20.0))
    return _mixed(take, np.fft.irfft(spectrum, n), snr)


@_effect("babble", Stage.NOISE, _SNR, needs=("voice",))
def _babble(take: Take, snr: float) -> Samples:
    """Six voices, equally loud."""
    n, rng = len(take.samples), take.rng
    babble = np.zeros(n)
    for _ in range(_VOICES):
        voice = _drawn(take.materials.voices, rng, lambda item: _excerpt(item, n, rng), take.run_in)
        babble += voice / rms(voice)
    return _mixed(take, babble, snr)


# -- the device --------------------------------------------------------------------------------------------------------

_HZ = Value("Hz", 20, 7900)


@_effect("lowpass", Stage.DEVICE, _HZ)
def _lowpass(take: Take, hz: float) -> Samples:
    return _filtered(take.samples, hz, "lowpass")


@_effect("highpass", Stage.DEVICE, _HZ)
def _highpass(take: Take, hz: float) -> Samples:
    return _filtered(take.samples, hz, "highpass")


@_effect("bandpass", Stage.DEVICE)
def _bandpass(take: Take, _: float) -> Samples:
    """300 to 3400 Hz."""
    return _filtered(take.samples, (300, 3400), "bandpass")


@_effect("compand", Stage.DEVICE, needs=("sox",))
def _compand(take: Take, _: float) -> Samples:
    """A compressor, 3:1 over the upper 60 dB."""
    return _sox(take.samples, lambda transformer: transformer.compand())


@_effect("flanger", Stage.DEVICE, needs=("sox",))
def _flanger(take: Take, _: float) -> Samples:
    return _sox(take.samples, lambda transformer: transformer.flanger())


@_effect("tremolo", Stage.DEVICE, needs=("sox",))
def _tremolo(take: Take, _: float) -> Samples:
    """6 times a second, 40 % deep."""
    return _sox(take.samples, lambda transformer: transformer.tremolo())


@_effect("clip", Stage.DEVICE, Value("%", 0, 50, 10))
def _clip(take: Take, percent: float) -> Samples:
    """Overload: that share of the samples, the loudest ones, held at the limit."""
    limit = np.quantile(np.abs(take.samples), 1 - percent / 100)
    return np.clip(take.samples, -limit, limit)


# -- the codec ---------------------------------------------------------------------------------------------------------


@_effect("telephone", Stage.CODED)
def _telephone(take: Take, _: float) -> Samples:
    """300 to 3400 Hz, 8 kHz, mu-law (G.711)."""
    return _at_8_khz(_bandpass(take, 0.0), "ULAW")


@_effect("mp3_", Stage.CODED, Value("kbit/s", 8, 160), needs=("libmp3lame",))
def _mp3(take: Take, kbit: float) -> Samples:
    return _encoded(take.samples, "libmp3lame", "clip.mp3", kbit)


@_effect("opus_", Stage.CODED, Value("kbit/s", 6, 256), needs=("libopus",))
def _opus(take: Take, kbit: float) -> Samples:
    return _encoded(take.samples, "libopus", "clip.opus", kbit)


@_effect("aac_", Stage.CODED, Value("kbit/s", 8, 96), needs=("aac",))
def _aac(take: Take, kbit: float) -> Samples:
    return _encoded(take.samples, "aac", "clip.m4a", kbit)


@_effect("gsm", Stage.CODED)
def _gsm(take: Take, _: float) -> Samples:
    """GSM 06.10 full rate, 13 kbit/s at 8 kHz."""
    return _at_8_khz(take.samples, "GSM610")


@_effect(
    "rerecord",
    Stage.CODED,
    Value("times", 1, 9, 1, whole=True),
    needs=("ir", "noise", "libmp3lame"),
    rings=True,
)
def _rerecord(take: Take, times: float) -> Samples:
    """A loudspeaker recorded: room, device, noise at 5 dB, MP3 at 64 kbit/s; and that recorded again, in a chain."""
    for _ in range(int(times)):
        for act, value in ((_reverb, 0.0), (_reverb, 0.0), (_noise, 5.0), (_mp3, 64.0)):
            take = take.then(act(take, value))
    return take.samples


# -- the file ----------------------------------------------------------------------------------------------------------


@_effect("level", Stage.FILE, Value("dB", -90, 40))
def _level(take: Take, decibel: float) -> Samples:
    """Louder or softer; what goes beyond full scale is cut off."""
    return np.clip(take.samples * 10 ** (decibel / 20), -1.0, 1.0)


@_effect("truncate_silence", Stage.FILE, needs=("sox",))
def _truncate_silence(take: Take, _: float) -> Samples:
    """Of each pause only 0.3 s are left; a pause is what stays 40 dB under the peak."""
    threshold = f"{_SOX_PEAK:g}%"  # of full scale

    def add(transformer: Transformer) -> None:
        # pysox's own silence() would cut the beginning off, and so move the clip
        transformer.effects.extend(["silence", "-l", "0", "-1", "0.3", threshold])

    return _sox(take.samples, add)


@_effect("reverse", Stage.FILE)
def _reverse(take: Take, _: float) -> Samples:
    return take.samples[::-1]
