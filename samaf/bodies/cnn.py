"""A small convolutional network of depthwise separable blocks, after MobileNet (Howard et al. 2017).

The window is an image of frames and bands. A convolution of 3 x 3 begins; each block has one of 3 x 3 over each channel
by itself and one that mixes the channels, with ReLU after each. A block that widens halves the image, as the first
convolution does; one that is as wide as before adds what it was given (He et al. 2016). At the end each channel is
weighed over the whole image that is left, which keeps what came first apart from what came last (Chen et al. 2018,
MobileFaceNets). Batch normalisation served training alone, and is part of the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from samaf.features import WINDOW_FRAMES
from samaf.onnx_graph import Message, Part, node
from samaf.packed import Stored, unpacked
from samaf.untrusted import named, whole

_MOST_BANDS = 1024
_MOST_BLOCKS = 8
_MOST_CHANNELS = 1024
_MOST_MACS = 1 << 30
_MOST_VALUE = 65504.0
"""That ReLU lets through, far above what a trained network has: with no weights does a sum become infinite."""


class Block(NamedTuple):
    """A block: channels in and out, and the image that it is given and gives."""

    number: int
    before: int
    after: int
    given: tuple[int, int]
    made: tuple[int, int]

    @property
    def strides(self) -> int:
        """Of its first convolution."""
        return 2 if self.halves else 1

    @property
    def halves(self) -> bool:
        """Whether it halves the image; else, if it is as wide as before, it adds what it was given."""
        return self.after > self.before


@dataclass(frozen=True)
class Cnn:
    """Arrays, their last dimension that of the channels they make.

    stem (3, 3, channels); for block n depthwise_n (3, 3, channels) and pointwise_n (channels before, after); whole
    (frames left, bands left, channels). Each has a bias, as stem_bias.
    """

    bands: int
    """Values of a frame."""
    widths: tuple[int, ...]
    """Channels of the first convolution, then of each block."""

    kind: ClassVar[str] = "cnn"
    batch: ClassVar[int] = 32
    """The first convolution of 56 channels makes 360 kB of a window."""

    @classmethod
    def of_units(cls, bands: int, units: int) -> Cnn:
        """The network that a preset has: six blocks, the last with so many channels."""
        return cls(bands, tuple(max(1, units // part) for part in (8, 4, 4, 2, 2, 1, 1)))

    @property
    def units(self) -> int:
        """Channels at the end."""
        return self.widths[-1]

    def inputs(self, stack: int) -> int:
        """Values of a step of `stack` frames."""
        return self.bands * stack

    def blocks(self) -> Iterator[Block]:
        """The blocks in their order."""
        image = self.first_image
        for number, (before, after) in enumerate(zip(self.widths, self.widths[1:], strict=False), start=1):
            made = _halved(image) if after > before else image
            yield Block(number, before, after, image, made)
            image = made

    @property
    def first_image(self) -> tuple[int, int]:
        """Frames and bands after the first convolution."""
        return _halved((WINDOW_FRAMES, self.bands))

    @property
    def last_image(self) -> tuple[int, int]:
        """Frames and bands after the last block."""
        return [self.first_image, *(block.made for block in self.blocks())][-1]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Arrays by name."""
        shapes: dict[str, tuple[int, ...]] = {"stem": (3, 3, self.widths[0])}
        for block in self.blocks():
            shapes[f"depthwise_{block.number}"] = (3, 3, block.before)
            shapes[f"pointwise_{block.number}"] = (block.before, block.after)
        shapes["whole"] = (*self.last_image, self.units)
        return {
            part: size
            for name, shape in shapes.items()
            for part, size in ((name, shape), (f"{name}_bias", shape[-1:]))
        }

    def macs(self, n_steps: int) -> int:
        """Multiplications with addition for one window."""
        total = math.prod(self.first_image) * 9 * self.widths[0] + math.prod(self.last_image) * self.units
        return total + sum(
            math.prod(block.made) * block.before * (9 + block.after) for block in self.blocks()
        )

    def graph(self, arrays: Stored) -> Part:
        """Nodes and constants; all in float32."""
        constants: dict[str, NDArray[Any]] = {
            "image": np.array([-1, 1, WINDOW_FRAMES, self.bands], np.int64),
            "least_value": np.array(0.0, np.float32),
            "most_value": np.array(_MOST_VALUE, np.float32),
        }
        nodes: list[Message] = [node("Reshape", ["windows", "image"], ["given"])]

        def convolved(name: str, given: str, rectified: bool = True, **options: Any) -> str:
            array = unpacked(arrays[name])
            if array.ndim == 2:  # (before, after): one place of the image
                constants[name] = array.T[:, :, None, None]
            else:  # (high, wide, channels)
                constants[name] = array.transpose(2, 0, 1)[:, None]
            constants[f"{name}_bias"] = unpacked(arrays[f"{name}_bias"])
            made = f"{name}_made"
            nodes.append(node("Conv", [given, name, f"{name}_bias"], [made], **options))
            if rectified:
                nodes.append(node("Clip", [made, "least_value", "most_value"], [f"{name}_rectified"]))
                made = f"{name}_rectified"
            return made

        same: dict[str, Any] = {"auto_pad": "SAME_UPPER"}
        image = convolved("stem", "given", strides=[2, 2], **same)
        for block in self.blocks():
            strides = [block.strides] * 2
            made = convolved(f"depthwise_{block.number}", image, group=block.before, strides=strides, **same)
            made = convolved(f"pointwise_{block.number}", made)
            if block.after == block.before:
                nodes.append(node("Add", [image, made], [f"sum_{block.number}"]))
                made = f"sum_{block.number}"
            image = made
        last = convolved("whole", image, rectified=False, group=self.units)
        nodes.append(node("Flatten", [last], ["state"]))
        return Part(nodes, constants)

    def to_json(self) -> dict[str, Any]:
        """The sizes as JSON types."""
        return {"bands": self.bands, "widths": list(self.widths)}

    @classmethod
    def from_json(cls, sizes: dict[str, Any]) -> Cnn:
        """The body of such sizes: up to 8 blocks of up to 1024 channels, 2^30 multiplications in all."""
        named(sizes, "bands", "widths")
        widths = sizes["widths"]
        if not isinstance(widths, list) or not 1 <= len(widths) <= 1 + _MOST_BLOCKS:
            raise ValueError(f"widths are no list of up to {1 + _MOST_BLOCKS} numbers of channels")
        made = cls(
            whole("bands", sizes["bands"], 1, _MOST_BANDS),
            tuple(whole("widths", width, 1, _MOST_CHANNELS) for width in widths),
        )
        if made.macs(0) > _MOST_MACS:
            raise ValueError(f"it needs more than {_MOST_MACS} multiplications a window")
        return made


def _halved(image: tuple[int, int]) -> tuple[int, int]:
    high, wide = image
    return (high + 1) // 2, (wide + 1) // 2
