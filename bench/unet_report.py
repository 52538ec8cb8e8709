"""What :mod:`bench.unet` finds as tables beside the article's values, and the article's figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from baselines.autoencoder.features import CLIP_S
from baselines.unet import UNetParameters
from bench.metrics import Rate
from bench.unet import CONDITIONS, GIVEN, HEARD, PLACED, Found, Protocol, Trial
from samaf.audio import SAMPLE_RATE
from samaf.picture import drawing

OFFSETS_S = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.25)
"""Edges of the classes of distances from the stored grid."""
ARTICLE_MSE, ARTICLE_PSNR = 0.4976, 51.16
"""Of its test data (figure 10); its conclusion has 51.1132."""
ARTICLE_LOSS, ARTICLE_VALIDATION_LOSS = 0.14785, 0.15930
"""After 20 epochs (figure 9)."""


Float32 = NDArray[np.float32]


def draw(panels: dict[str, tuple[Float32, Float32]], place: Path) -> None:
    """Draw the article's figures 11 and 12 of one clip: waveforms and mel spectrograms.

    Parameters
    ----------
    panels
        Samples (64000,) and spectrogram (64, 376) of each panel, by its title.
    place
        ``-waveforms.png`` and ``-spectrograms.png`` are added.
    """
    pyplot = drawing()
    low, high = (
        float(f(shown))
        for f, shown in zip((np.min, np.max), 2 * [panels[next(iter(panels))][1]], strict=True)
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    for what in ("waveforms", "spectrograms"):
        figure, axes = pyplot.subplots(
            len(panels) // 3, 3, figsize=(13, 5.4), sharex=True, sharey=True, layout="constrained"
        )
        for axis, (title, (samples, shown)) in zip(axes.flat, panels.items(), strict=True):
            if what == "waveforms":
                axis.plot(np.arange(len(samples)) / SAMPLE_RATE, samples, linewidth=0.4)
            else:
                extent = (0.0, CLIP_S, 0.0, float(len(shown)))
                axis.imshow(shown, origin="lower", aspect="auto", extent=extent, vmin=low, vmax=high)
            axis.set_title(title, fontsize=10)
        figure.supxlabel("s")
        figure.supylabel("amplitude" if what == "waveforms" else "mel band")
        figure.savefig(place.with_name(f"{place.name}-{what}.png"), dpi=110)
        pyplot.close(figure)


def tables(results: dict[UNetParameters, Found], protocol: Protocol) -> Iterator[str]:
    """All that was found, in Markdown, beside the article's values."""
    library = protocol.material.library
    hours = sum(track.duration_s for track in library) / 3600
    yield f"## Naming clips of 4 s among {len(library)} recordings, {hours:.1f} h"
    yield ""
    yield "Shares in %, with intervals at 95 %. The article shows one random clip, found first without noise and with."
    yield ""
    head = [f"{condition}, {placed}" for placed in PLACED for condition in CONDITIONS]
    for what, title in (
        ("first", "Top-1"),
        ("five", "Top-5"),
        ("segment", "Top-1, and the right segment of it"),
    ):
        yield from _table(
            title,
            head,
            {
                f"{parameters.title}, {kind}": [
                    _share(found.answers[Trial(kind, condition, placed)].rate(what))
                    for placed in PLACED
                    for condition in CONDITIONS
                ]
                for parameters, found in results.items()
                for kind in protocol.kinds
            },
        )
    yield from _table(
        "Top-1 at random places, by the distance from the stored grid",
        [f"{low:g} to {high:g} s" for low, high in _classes()],
        {
            f"{parameters.title}, {kind}, {condition}": [
                _share(found.answers[Trial(kind, condition, "random")].rate("first", low, high))
                for low, high in _classes()
            ]
            for parameters, found in results.items()
            for kind in protocol.kinds
            for condition in CONDITIONS
        },
    )
    yield f"## Rebuilding {protocol.rebuilt} clips of recordings that were left for tests"
    yield ""
    yield (
        f"The article has an MSE of {ARTICLE_MSE} and a PSNR of {ARTICLE_PSNR} dB, which takes a peak of 255. The "
        "usual peak is the range of the clean spectrogram's values. Values of spectrograms are in the network's own "
        "units: standard deviations of a band, or nepers of power where nothing is normalised. Compared is always with "
        f'the clean clip; "given" is the clip as the network is given it. Samples, by Griffin and Lim, are of {HEARD} '
        "clips, of which the amplitude 1 is the peak."
    )
    yield ""
    for parameters, found in results.items():
        yield from _table(
            parameters.title,
            ["MSE", "PSNR, peak 255, dB", "PSNR, dB", "MSE of samples", "PSNR of samples, dB"],
            {
                f"{name}, {origin}": [
                    "-" if (name, origin) == ("clean", GIVEN) and "samples" not in measure else _told(*pair)
                    for measure, pair in asdict(measures).items()
                ]
                for (name, origin), measures in found.rebuilt.items()
            },
        )
    yield "## Training"
    yield ""
    yield (
        f"The article's losses after 20 epochs: {ARTICLE_LOSS} in training, {ARTICLE_VALIDATION_LOSS} in validation. "
        "Ours in training is of clips of which half are noisy, in validation of noisy ones; passes are its epochs."
    )
    yield ""
    names = ["loss", "val_loss", "val_top1", "passes", "clips_per_s"]
    yield from _table(
        "Last epoch",
        names,
        {
            parameters.title: [
                f"{found.training[name]:.4g}" if name in found.training else "-" for name in names
            ]
            for parameters, found in results.items()
        },
    )


def _classes() -> list[tuple[float, float]]:
    """Distances from the stored grid; the last class holds its end too."""
    edges = [*OFFSETS_S[:-1], OFFSETS_S[-1] + 1e-6]
    return list(pairwise(edges))


def _table(title: str, head: Sequence[str], rows: dict[str, list[str]]) -> Iterator[str]:
    yield title
    yield ""
    yield "| " + " | ".join(["network", *head]) + " |"
    yield "|" + "---|" * (len(head) + 1)
    for name, cells in rows.items():
        yield "| " + " | ".join([name, *cells]) + " |"
    yield ""


def _share(rate: Rate) -> str:
    """``97.1 [96, 98]``; a dash of nothing."""
    if not rate.n:
        return "-"
    low, high = rate.interval
    return f"{100 * rate.value:.1f} [{100 * low:.0f}, {100 * high:.0f}]"


def _told(mean: float, half: float) -> str:
    """``0.163 ± 0.004``."""
    return f"{mean:.3g} ± {half:.1g}"
