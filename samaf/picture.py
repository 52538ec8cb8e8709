"""A picture of a match: clip and track, their hashes, and the bits that differ."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr
from numpy.typing import NDArray

from samaf.audio import SAMPLE_RATE, read_audio
from samaf.errors import SamafError, shown
from samaf.hamming import unpack
from samaf.settings import QUERY_HOP_S

if TYPE_CHECKING:
    from samaf.encoder import Encoder
    from samaf.match import Match

LONGEST_S = 60.0
"""Of longer matches, so much is drawn."""
NEEDED = "drawing needs matplotlib, which is not installed; run: pip install 'samaf[plot]'"

_INK, _PAPER, _RED = "#22223b", "#f4f1ea", "#d62839"

StrPath = str | os.PathLike[str]
Float32 = NDArray[np.float32]


def can_draw() -> bool:
    """Whether what draws is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def drawing() -> Any:
    """Return `matplotlib.pyplot`, drawing into files.

    Raises
    ------
    SamafError
        If it is not installed.
    """
    if not can_draw():
        raise SamafError(NEEDED)
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def draw(encoder: Encoder, clip: StrPath, match: Match, out: StrPath, *, label: str = "") -> None:
    """Draw a clip over the stretch of the track that it was found in: spectrograms, hashes, and the bits that differ.

    A clip that was played at another speed is drawn as it was before; at another tempo, its hashes lie closer.

    Parameters
    ----------
    encoder
        Of the index.
    clip
        The audio file that was searched for.
    match
        What was found.
    out
        The picture to write, a PNG.
    label
        Of the clip; its name by default.

    Raises
    ------
    AudioError
        If clip or track cannot be read as audio.
    SamafError
        If matplotlib is not installed, or the picture cannot be written.
    """
    pyplot = drawing()
    from matplotlib.colors import ListedColormap

    end_s = min(match.query_end_s, match.query_start_s + LONGEST_S)
    heard = read_audio(clip, start_s=match.query_start_s, end_s=end_s)
    restored = 2.0 ** (match.pitch_cents / 1200) if match.pitch_cents else match.speed
    if restored != 1.0:
        heard = soxr.resample(heard, SAMPLE_RATE, SAMPLE_RATE * restored)
    tempo = match.speed * match.tempo / restored
    stored_s = len(heard) / SAMPLE_RATE * tempo
    stored = read_audio(match.path, start_s=match.track_start_s, end_s=match.track_start_s + stored_s)
    prints = [
        encoder.encode(samples, hop_s=hop_s)
        for samples, hop_s in ((heard, QUERY_HOP_S), (stored, round(QUERY_HOP_S * tempo, 2)))
    ]
    n = min(map(len, prints))
    heard_bits, stored_bits = (unpack(p.hashes[:n], encoder.bits).T for p in prints)
    wrong = heard_bits != stored_bits
    figure, axes = pyplot.subplots(
        5,
        1,
        figsize=(10, 9.5),
        layout="constrained",
        height_ratios=[2.2, 2.2, 1.6, 1.6, 1.6],
        facecolor="white",
    )
    for axis, samples, start_s, title in (
        (axes[0], heard, match.query_start_s, f"clip: {label or os.path.basename(clip)}"),
        (axes[1], stored, match.track_start_s, f"“{match.title}”"),
    ):
        axis.imshow(
            _spectrogram(samples),
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=-75,
            vmax=0,
            extent=(start_s, start_s + len(samples) / SAMPLE_RATE, 0, SAMPLE_RATE / 2000),
        )
        axis.set_ylabel("kHz")
        axis.set_title(title, loc="left", fontsize=10, fontweight="bold", parse_math=False)
        axis.set_title("seconds", loc="right", fontsize=9)
    for axis, bits, colour, title in (
        (axes[2], heard_bits, _INK, "hashes of the clip"),
        (axes[3], stored_bits, _INK, "hashes of the track"),
        (axes[4], wrong, _RED, f"bits that differ: {100 * wrong.mean():.1f} %"),
    ):
        axis.imshow(
            bits,
            aspect="auto",
            cmap=ListedColormap([_PAPER, colour]),
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )
        axis.set_title(title, loc="left", fontsize=10, fontweight="bold", color=colour)
        axis.set_ylabel("bit")
        axis.set_yticks([0, encoder.bits // 2, encoder.bits - 1])
        axis.set_xticks([])
    axes[4].set_xlabel(f"one hash every {QUERY_HOP_S:g} s")
    figure.suptitle(
        f"found at {match.track_start_s:.1f} s of “{match.title}”: bit error rate {match.ber:.3f}, "
        f"score {match.score:.1f}",
        fontsize=13,
        parse_math=False,
    )
    try:
        figure.savefig(out, dpi=130)
    except OSError as error:
        raise SamafError(
            f"{shown(out)}: cannot be written ({error.strerror}); choose another folder"
        ) from None
    finally:
        pyplot.close(figure)


def _spectrogram(samples: Float32) -> NDArray[np.float64]:
    """Decibels under the maximum, (frequencies, times)."""
    size, hop = 1024, 160
    padded = np.pad(samples.astype(np.float64), size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(size))) ** 2
    return 10 * np.log10(np.maximum(power / max(power.max(), 1e-12), 1e-12)).T
