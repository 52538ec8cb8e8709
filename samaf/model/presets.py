"""Named training configurations: ours, and the one of the SAMAF paper."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from samaf.bodies import BODIES, Body, Cnn, Lstm
from samaf.features import FRONT_ENDS, WINDOW_FRAMES
from samaf.weights import Weights

FINE_TUNING_STEPS = 2000
FINE_TUNING_RATE = 0.25
"""Peak rate of a fine-tuning without a teacher over that of a training."""
TAUGHT_HASH = 0.1
"""Weight of the Hash Loss beside a teacher over that without one."""


@dataclass(frozen=True)
class Preset:
    """Everything that shapes a model, apart from the audio it is trained on.

    Attributes
    ----------
    front_end
        ``"log-mel"`` or ``"mfcc"``.
    encoder
        The network, one of :data:`samaf.bodies.BODIES`.
    stack
        Frames that one LSTM step sees; 100 / stack steps a window.
    units, decoder_units
        Size of the encoder's state, which is that of its LSTM, and of the decoder's LSTM.
    bits
        Code lengths, ascending; each shorter code is the beginning of the longer ones.
    hash_loss
        ``"contrast"`` or ``"pull"``; see :mod:`samaf.model.losses`.
    mse_weight, hash_weight, entropy_weight, balance_weight
        Weights of the composite loss; `balance_weight` is the guard against collapse.
    temperature
        Of the contrast form.
    distil_weight
        Of the difference from a teacher's codes, where there is a teacher.
    renderings
        Distorted renderings of each chunk beside the clean one. 0: twins differ by jitter alone.
    jitter_s
        Twins start up to this much apart.
    neighbours, variety, overlay, overhang
        Shares of the twins that come with a look-alike, are changed alike into other music, have their distorted one
        laid over with another sound, and have but a part of it known; see :mod:`samaf.model.twins`. Variety and
        overlay are for ``"log-mel"`` alone.
    pairs, steps, learning_rate, warm_up
        Twin pairs a step, number of steps, peak rate of Adam, share of the steps that warm up.
    """

    name: str
    front_end: str = "log-mel"
    encoder: str = "lstm"
    stack: int = 4
    units: int = 384
    decoder_units: int = 128
    bits: tuple[int, ...] = (64, 128, 256)
    hash_loss: str = "contrast"
    mse_weight: float = 0.1
    hash_weight: float = 1.0
    entropy_weight: float = 0.1
    balance_weight: float = 0.1
    temperature: float = 0.07
    distil_weight: float = 5.0
    renderings: int = 6
    jitter_s: float = 0.06
    neighbours: float = 0.4
    variety: float = 1.0
    overlay: float = 0.4
    overhang: float = 0.3
    pairs: int = 384
    steps: int = 10000
    learning_rate: float = 2e-3
    warm_up: float = 0.05

    def __post_init__(self) -> None:
        if self.front_end != "log-mel" and (self.variety or self.overlay):
            raise ValueError(f"variety and overlay work on log-mel frames, not on {self.front_end}")
        if self.encoder not in BODIES:
            raise ValueError(f"encoder must be one of {', '.join(BODIES)}, not {self.encoder}")

    @property
    def n_steps(self) -> int:
        """LSTM steps of one window."""
        return WINDOW_FRAMES // self.stack

    @property
    def n_inputs(self) -> int:
        """Values that one LSTM step sees."""
        return FRONT_ENDS[self.front_end][0].n_values * self.stack

    @property
    def body(self) -> Body:
        """The network that makes a window's state."""
        if self.encoder == Cnn.kind:
            return Cnn.of_units(FRONT_ENDS[self.front_end][0].n_values, self.units)
        return Lstm(self.n_inputs, self.units)

    def with_options(self, **options: Any) -> Preset:
        """A copy with some values changed; those given as None stay."""
        return replace(self, **{k: v for k, v in options.items() if v is not None})

    def to_json(self) -> dict[str, Any]:
        """The values as JSON types."""
        return asdict(self) | {"bits": list(self.bits)}


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("samaf"),
        # The recipe of the weights that ship: many more steps, of larger batches, than a laptop has patience for.
        Preset("samaf-4", renderings=24, pairs=1024, steps=52000),
        # A convolutional network in the LSTM's place, of as many multiplications: 26 million a window.
        Preset("cnn", encoder="cnn", units=448),
        # Baez-Suarez et al. 2020: 13 MFCC, one LSTM each way, no distortion of the training audio.
        Preset(
            "paper",
            front_end="mfcc",
            stack=1,
            units=128,
            decoder_units=128,
            bits=(128,),
            hash_loss="pull",
            mse_weight=1.0,
            renderings=0,
            neighbours=0.0,
            variety=0.0,
            overlay=0.0,
            overhang=0.0,
            pairs=128,
            learning_rate=1e-3,
        ),
    )
}


def preset_from_json(values: dict[str, Any]) -> Preset:
    """The preset that :meth:`Preset.to_json` wrote."""
    return Preset(**values | {"bits": tuple(values["bits"])})


def fine_tuning(preset: Preset, weights: Weights, *, taught: bool = False) -> Preset:
    """A short training by the recipe of a preset that begins with the network of a weights file.

    A teacher keeps it from forgetting what the network knows already; without one it must go slower.
    """
    plain = weights.front_end != "log-mel"
    return replace(
        preset,
        front_end=weights.front_end,
        encoder=weights.body.kind,
        stack=weights.stack,
        units=weights.units,
        bits=weights.bits,
        variety=0.0 if plain else preset.variety,
        overlay=0.0 if plain else preset.overlay,
        steps=FINE_TUNING_STEPS,
        learning_rate=(1.0 if taught else FINE_TUNING_RATE) * preset.learning_rate,
    )


def with_teacher(preset: Preset) -> Preset:
    """The same training beside a teacher.

    The teacher's codes say more of a window than its twin does: with as much Hash Loss as without a teacher, a student
    learns little of them.
    """
    return replace(preset, hash_weight=TAUGHT_HASH * preset.hash_weight)
