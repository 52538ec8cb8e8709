"""The networks that an encoder may have: each makes a vector of a window, its *state*.

What follows is the same for all: a dense layer makes the code's values of the state, and clarity is told from it. A
body is the sizes of its network. They say which arrays it has, and what it costs; of the arrays it makes nodes of an
ONNX graph. The training side of each is in :mod:`samaf.model.network`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from samaf.bodies.cnn import Cnn
from samaf.bodies.lstm import Lstm
from samaf.onnx_graph import Part
from samaf.packed import Stored
from samaf.untrusted import named, text

__all__ = ["BODIES", "Body", "Cnn", "Lstm", "body_of"]


class Body(Protocol):
    """Sizes of a network, and what follows from them."""

    kind: ClassVar[str]
    """Its name in :data:`BODIES`."""
    batch: ClassVar[int]
    """Windows that go through it at once: more of them take more memory, and fewer more time."""

    @property
    def units(self) -> int:
        """Values of the state."""
        ...

    def inputs(self, stack: int) -> int:
        """Values of a step of `stack` frames."""
        ...

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Arrays by name. Those of two dimensions, (inputs, outputs), may be packed."""
        ...

    def macs(self, n_steps: int) -> int:
        """Multiplications with addition for one window."""
        ...

    def graph(self, arrays: Stored) -> Part:
        """Nodes and constants from "windows" (n, steps, inputs) to "state" (n, units)."""
        ...

    def to_json(self) -> dict[str, Any]:
        """The sizes as JSON types."""
        ...

    @classmethod
    def from_json(cls, sizes: dict[str, Any]) -> Body:
        """The body of such sizes; what no network can have is a `ValueError`."""
        ...


BODIES: dict[str, type[Body]] = {body.kind: body for body in (Lstm, Cnn)}


def body_of(values: Any) -> Body:
    """The body that JSON found in a file tells of, as ``to_json`` wrote it with its kind; else a `ValueError`."""
    kind = text("kind", named(values, "kind")["kind"], 64)
    if kind not in BODIES:
        raise ValueError(f"{kind!r} is no network that this samaf knows")
    return BODIES[kind].from_json(values)
