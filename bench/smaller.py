"""The smaller models that can be made of one: the recipes that `bench reproduce compression` follows.

Weights in fewer bits; a short fine-tuning without the smallest weights, or of the most important units alone, which
make a curve of ten points; a student of few units that learns from the model for longer, and the same network without
it; a convolutional network of as many multiplications as those. What begins with the model's own network learns from
its codes. All are calibrated on the same recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import kept
from samaf.bodies import Lstm
from samaf.encoder import load_weights
from samaf.errors import ModelError, shown
from samaf.model.augment import Sources
from samaf.model.corpus import Corpus
from samaf.model.export import export_quantised
from samaf.model.fit import train
from samaf.model.presets import PRESETS, Preset, fine_tuning
from samaf.weights import Weights


@dataclass(frozen=True)
class Amount:
    """How much a model is made with.

    Attributes
    ----------
    steps, tuning_steps
        Of a new network's training, and of a fine-tuning; None: those of the presets.
    queries
        See :func:`samaf.model.calibrate.calibration_of`.
    seed
        See :func:`samaf.model.fit.train`.
    """

    steps: int | None = None
    tuning_steps: int | None = None
    queries: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """How a smaller model is made.

    Attributes
    ----------
    name
        Of its file.
    storage
        Its matrices are in so few bits: ``"int8"``, ``"int4"``.
    pruned
        Share of the weights that are 0.
    kept
        Share of the units that are left, or of the model's that a new network has.
    is_long
        It is trained as long as a new network.
    preset
        A new network of this preset.
    is_new
        It begins with nothing: a network of `preset`.
    """

    name: str
    storage: str | None = None
    pruned: float | None = None
    kept: float | None = None
    is_long: bool = False
    preset: str = "samaf"
    is_new: bool = False

    @property
    def begins(self) -> bool:
        """Whether it begins with the model's own network, and learns from it."""
        return self.storage is None and not self.is_new

    @property
    def tunes(self) -> bool:
        """Whether it is a fine-tuning of the model."""
        return self.begins and not self.is_long

    def shaped(self, weights: Weights, amount: Amount) -> Preset:
        """What it is trained by."""
        preset = PRESETS[self.preset]
        units = None if self.kept is None else round(self.kept * weights.units)
        if not self.begins:
            return preset.with_options(bits=weights.bits, units=units, steps=amount.steps)
        tuning = fine_tuning(preset, weights, taught=True)
        steps = (amount.steps or preset.steps) if self.is_long else amount.tuning_steps
        return tuning.with_options(units=units, steps=steps)


STUDENT = 1 / 3
"""Of the model's units: a fifth of the multiplications."""
AS_MANY_CHANNELS = 0.48
"""Of the model's units, at the end of a convolutional network: as many multiplications as the student's."""
RECIPES = (
    Recipe("int8", storage="int8"),
    Recipe("int4", storage="int4"),
    *(Recipe(f"pruned-{100 * share:.0f}", pruned=share) for share in (0.3, 0.5, 0.7, 0.8, 0.9)),
    *(Recipe(f"units-{100 * part / 6:.0f}", kept=part / 6) for part in (5, 4, 3, 2, 1)),
    Recipe("student", kept=STUDENT, is_long=True),
    Recipe("untaught", kept=STUDENT, is_new=True),
    Recipe("cnn", kept=AS_MANY_CHANNELS, preset="cnn", is_new=True),
)
NAMES = tuple(recipe.name for recipe in RECIPES)


@dataclass(frozen=True)
class Audio:
    """The recordings that models are made with.

    Attributes
    ----------
    training
        What they are trained on.
    sources
        Noise and rooms that spoil clips, and voices that babble in the clips of a calibration.
    held_out
        What they are calibrated on, by its kind.
    library
        Searched among meanwhile, besides `held_out`.
    """

    training: Sequence[Path]
    sources: Sources
    held_out: Sequence[Sequence[Path]]
    library: Sequence[Path]


def chosen(names: Sequence[str]) -> list[Recipe]:
    """The recipes of these names, in the usual order.

    Raises
    ------
    ModelError
        If there is none of a name.
    """
    if unknown := [name for name in names if name not in NAMES]:
        raise ModelError(f"{shown(unknown[0])}: no such model is made; there are {', '.join(NAMES)}")
    return [recipe for recipe in RECIPES if recipe.name in names]


def check(source: Path, bits: int) -> None:
    """Refuse a model of which no smaller ones can be made, or compared at a code length.

    Raises
    ------
    ModelError
        If it cannot be read, is no LSTM in float16 on log-mel frames, or has no such code.
    """
    weights = load_weights(source)
    if not isinstance(weights.body, Lstm) or weights.is_packed or weights.front_end != "log-mel":
        raise ModelError(
            f"{shown(source)}: is no LSTM in float16 on log-mel frames; give one, or leave --model out"
        )
    if bits not in weights.bits:
        lengths = ", ".join(map(str, weights.bits))
        raise ModelError(f"{shown(source)}: has no code of {bits} bits; choose --bits of {lengths}")


def is_there(recipe: Recipe, source: Path, out: Path, audio: Audio, amount: Amount) -> bool:
    """Whether a model has been made.

    Raises
    ------
    ModelError
        If one of this name was made otherwise.
    """
    if not out.exists():
        return False
    if kept.read(_made_with(out), _about(recipe, source, audio, amount)) is None:
        raise ModelError(
            f"{shown(out)}: was made of another model, of other audio or in another way; name another folder with "
            "--weights, or remove it"
        )
    return True


def _made_with(out: Path) -> Path:
    """What says how a model was made, or is being made."""
    return out.with_suffix(".json")


def _about(recipe: Recipe, source: Path, audio: Audio, amount: Amount) -> dict[str, Any]:
    """All that shapes a model."""
    weights = load_weights(source)
    voices = audio.sources.voices
    files = [audio.training, audio.sources.noise, audio.sources.rooms, voices, *audio.held_out, audio.library]
    return {
        "source": None if recipe.is_new else weights.own_id,
        "storage": recipe.storage,
        "pruned": recipe.pruned,
        "preset": None if recipe.storage else recipe.shaped(weights, amount).to_json(),
        "audio": [[path.name for path in some] for some in files],
        "queries": amount.queries,
        "seed": amount.seed,
    }


def make(
    recipe: Recipe,
    source: Path,
    out: Path,
    audio: Audio,
    amount: Amount,
    *,
    jobs: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    epoch_done: Callable[[int, int, dict[str, float]], None] = lambda epoch, epochs, logs: None,
) -> None:
    """Make a model; a training that was stopped goes on.

    Parameters
    ----------
    source
        The weights file that it is made of.
    out
        The weights file to write. Renderings that another training left beside it are taken over.
    jobs, progress, epoch_done
        See :func:`samaf.model.fit.train`.

    Raises
    ------
    AudioError, ModelError
        If there is too little audio.
    """
    kept.write(_made_with(out), _about(recipe, source, audio, amount), True)
    if recipe.storage is not None:
        export_quantised(
            source,
            out,
            audio.held_out,
            audio.library,
            storage=recipe.storage,
            sources=audio.sources,
            queries=amount.queries,
            seed=amount.seed,
            progress=progress,
        )
        return
    for other in sorted(out.parent.glob("*.work")):
        Corpus.lend(other, out.with_name(out.name + ".work"))
    begun = source if recipe.begins else None
    train(
        [str(path) for path in audio.training],
        noise=[str(path) for path in audio.sources.noise],
        rooms=[str(path) for path in audio.sources.rooms],
        out=out,
        preset=recipe.shaped(load_weights(source), amount),
        start=begun,
        prune=recipe.pruned,
        teacher=begun,
        calibration={
            "held_out": audio.held_out,
            "library": audio.library,
            "sources": audio.sources,
            "queries": amount.queries,
        },
        seed=amount.seed,
        jobs=jobs,
        progress=progress,
        epoch_done=epoch_done,
    )
