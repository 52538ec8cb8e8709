"""What :mod:`bench.unet` finds as tables beside the article's values, and the article's figures."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from baselines.autoencoder.features import CLIP_S
from baselines.unet import UNetParameters
from bench.metrics import Rate
from bench.study import Picture
from bench.tables import Table, plain_table
from bench.unet import CONDITIONS, GIVEN, HEARD, PLACED, Found, Protocol, Trial
from samaf.picture import drawing

OFFSETS_S = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25)
"""Edges of the classes of distances from the stored grid."""
ARTICLE_MSE, ARTICLE_PSNR = 0.4976, 51.16
"""Of its test data (figure 10); its conclusion has 51.1132."""
ARTICLE_LOSS, ARTICLE_VALIDATION_LOSS = 0.14785, 0.15930
"""After 20 epochs (figure 9)."""


FIGURES = {"waveforms": "amplitude", "spectrograms": "mel band"}
"""What is drawn, and the unit of its vertical axis."""
COLUMNS = 250
"""Of a drawn waveform."""
TRAINING = {
    "loss": "Training loss",
    "val_loss": "Validation loss",
    "val_top1": "Noisy clips nearest their clean one, of 128",
    "passes": "Epochs",
    "clips_per_s": "Clips a second",
}
"""What is told of a training, and under which words."""

TITLE = "Singh: Deep learning-based fingerprinting methods for audio representation and search (2025)"
REMARKS = (
    "The article shows one random segment of one of 235 songs, found first without noise and with. It does not say "
    "where the segment lies between the stored ones, which are 2.5 s apart. Here clips are asked for once where a "
    "stored segment begins (aligned), which is a check that all is right, and once anywhere. Nor does it describe its "
    "noise. Here it is recorded noise of files that no network was trained with, at the ratios that the collection of "
    "noisy speech named in the article has for tests.",
    "Its PSNR of 51.16 dB at an MSE of .4976 takes a peak of 255, that of pictures of 8 bits. The other PSNR has the "
    "usual peak, the range of the clean spectrogram's values. Values are in the network's own units: standard "
    "deviations of a band, or nepers of power where nothing is normalised. An MSE of samples says little, as phases "
    "are made up (Griffin and Lim).",
    "Connections from the encoder's layers to the decoder's pass the code by. What the whole network rebuilds "
    "therefore does not show that the code holds it; what is rebuilt from the code's 320 values alone does. The "
    "network was never trained to do without these connections.",
    "The article trains on the first 4 s of 4,736 files of clean and noisy speech. Here clips begin anywhere in music "
    "and speech, half of them have noise, and what is to be rebuilt is the clean clip.",
)

Float32 = NDArray[np.float32]


def draw(panels: dict[str, tuple[Float32, Float32]], place: Path) -> None:
    """Draw the article's figures 11 and 12 of one clip: waveforms and mel spectrograms.

    Parameters
    ----------
    panels
        Samples (64000,) and spectrogram (64, 376) of each panel, by its title.
    place
        ``-waveforms.svg`` and ``-spectrograms.svg`` are added.
    """
    pyplot = drawing()
    first = next(iter(panels.values()))[1]
    low, high = float(first.min()), float(first.max())
    place.parent.mkdir(parents=True, exist_ok=True)
    for what, unit in FIGURES.items():
        figure, axes = pyplot.subplots(
            len(panels) // 3, 3, figsize=(13, 5.4), sharex=True, sharey=True, layout="constrained"
        )
        for axis, (title, (samples, shown)) in zip(axes.flat, panels.items(), strict=True):
            if what == "waveforms":
                parts = samples[: len(samples) // COLUMNS * COLUMNS].reshape(COLUMNS, -1)
                at = np.linspace(0.0, CLIP_S, COLUMNS)
                axis.fill_between(at, parts.min(axis=1), parts.max(axis=1), linewidth=0.3)
                axis.set_ylim(-1.0, 1.0)
            else:
                extent = (0.0, CLIP_S, 0.0, float(len(shown)))
                axis.imshow(shown, origin="lower", aspect="auto", extent=extent, vmin=low, vmax=high)
            axis.set_title(title, fontsize=10)
        figure.supxlabel("s")
        figure.supylabel(unit)
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
        pyplot.close(figure)
        # as it can stand in a page: no prologue, as wide as its place
        text = svg.getvalue()[svg.getvalue().index("<svg") :]
        text = re.sub(
            r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text)
        )
        place.with_name(f"{place.name}-{what}.svg").write_text(text, encoding="utf-8")


def pictures(results: Mapping[UNetParameters, Found], folder: Path) -> list[Picture]:
    """Those that :func:`draw` left in a folder."""
    return [
        Picture(f"{parameters.title}: {what} of one clip", file.read_text(encoding="utf-8"))
        for parameters in results
        for what in FIGURES
        if (file := folder / f"{parameters.title}-{what}.svg").exists()
    ]


def tables(results: Mapping[UNetParameters, Found], protocol: Protocol) -> Iterator[Table]:
    """All that was found; a row for each network, and for each kind of recordings."""
    library = protocol.material.library
    hours = sum(track.duration_s for track in library) / 3600
    among = (
        f"Clips of {CLIP_S:g} s among {len(library)} recordings, {hours:.1f} h; %, with intervals at 95 %."
    )
    for what, title in (
        ("first", "the nearest code is of the right recording"),
        ("five", "one of the five nearest is"),
        ("segment", "the nearest is the stored segment that the clip is nearest to"),
    ):
        rows = [
            [
                f"{parameters.title}, {kind}, {placed}",
                *(_share(found.answers[Trial(kind, noise, placed)].rate(what)) for noise in CONDITIONS),
            ]
            for parameters, found in results.items()
            for kind in protocol.kinds
            for placed in PLACED
        ]
        yield plain_table(f"Naming: {title}", ["Network, recordings, place", *CONDITIONS], rows, among)
    rows = [
        [
            f"{parameters.title}, {kind}, {noise}",
            *(
                _share(found.answers[Trial(kind, noise, "random")].rate("first", *ends))
                for ends in _classes()
            ),
        ]
        for parameters, found in results.items()
        for kind in protocol.kinds
        for noise in CONDITIONS
    ]
    columns = [f"{low:g} to {high:.3g} s" for low, high in _classes()]
    yield plain_table(
        "Naming at random places, by the distance from the stored grid",
        ["Network, recordings, noise", *columns],
        rows,
        among,
    )
    rows = [
        [
            f"{parameters.title}: {name}, {origin}",
            *(
                "-" if (name, origin) == ("clean", GIVEN) and "samples" not in measure else _told(*pair)
                for measure, pair in asdict(measures).items()
            ),
        ]
        for parameters, found in results.items()
        for (name, origin), measures in found.rebuilt.items()
    ]
    yield plain_table(
        f"Rebuilding, the article: MSE {ARTICLE_MSE}, PSNR {ARTICLE_PSNR} dB",
        ["Clip", "MSE", "PSNR, peak 255, dB", "PSNR, dB", "MSE of samples", "PSNR of samples, dB"],
        rows,
        f"Means of {protocol.rebuilt} clips of recordings that were left for tests, against the clean clip; those of "
        f"samples are of {HEARD} clips.",
    )
    rows = [
        [
            parameters.title,
            *(f"{found.training[name]:.4g}" if name in found.training else "-" for name in TRAINING),
        ]
        for parameters, found in results.items()
    ]
    yield plain_table(
        f"Training, the article: {ARTICLE_LOSS} and {ARTICLE_VALIDATION_LOSS} after 20 epochs",
        ["Network", *TRAINING.values()],
        rows,
        "Of the last epoch. Half of the clips of the training are noisy, all of the validation.",
    )


def _classes() -> list[tuple[float, float]]:
    """Distances from the stored grid; the last class holds its end too."""
    edges = [*OFFSETS_S[:-1], OFFSETS_S[-1] + 1e-6]
    return list(pairwise(edges))


def _share(rate: Rate) -> str:
    """``97.1 [96, 98]``; a dash of nothing."""
    if not rate.n:
        return "-"
    low, high = rate.interval
    return f"{100 * rate.value:.1f} [{100 * low:.0f}, {100 * high:.0f}]"


def _told(mean: float, half: float) -> str:
    """``0.163 ± 0.004``."""
    return f"{mean:.3g} ± {half:.1g}"
