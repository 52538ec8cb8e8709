"""A minimal writer of ONNX models: what onnxruntime needs to run the encoder's network.

An ONNX model is a protobuf message. The package `onnx` could write it, but loading that costs every run of samaf some
60 ms (``python bench/encoder_backends.py --starts``), so the few messages that a small graph is made of are
written here. Their fields have the numbers that the `ONNX IR specification`_ gives
them in `onnx.proto`_; on the wire_ each field is a key ``number << 3 | type`` before a varint (type 0) or before a
length and that many bytes (type 2).

.. _ONNX IR specification: https://github.com/onnx/onnx/blob/main/docs/IR.md
.. _onnx.proto: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
.. _wire: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from numpy.typing import NDArray

IR_VERSION = 8
OPSET = 17
"""Both of 2022: onnxruntime has read them since 1.12."""

MICROSOFT = "com.microsoft"
"""Domain of onnxruntime's own operators."""

_FLOAT = 1  # TensorProto.DataType
_DATA_TYPES = {"<f4": _FLOAT, "|u1": 2, "|i1": 3, "<i4": 6, "<i8": 7}
_INT, _STRING, _INTS = 2, 3, 7  # AttributeProto.AttributeType

Shape = Sequence[int | str]
"""Lengths of the dimensions; a name stands for one that is known at run time only."""
Message = list[bytes]
"""A message in pieces: joined at the very end, the arrays in it are copied once and not at every level."""


class Part(NamedTuple):
    """A part of a graph: nodes, each after those whose outputs it takes, and arrays that they take by name."""

    nodes: list[Message]
    constants: dict[str, NDArray[Any]]


def node(
    operator: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    *,
    domain: str = "",
    **attributes: int | str | Sequence[int],
) -> Message:
    """A NodeProto: one operator on named values; an empty name leaves an optional value out."""
    fields = [_field(1, name) for name in inputs] + [_field(2, name) for name in outputs]
    fields.append(_field(4, operator))
    for name, value in attributes.items():  # AttributeProto: name, i or s or ints, type
        if isinstance(value, int):
            told = _field(3, value) + _field(20, _INT)
        elif isinstance(value, str):
            told = _field(4, value) + _field(20, _STRING)
        else:
            told = _message(_field(8, each) for each in value) + _field(20, _INTS)
        fields.append(_field(5, _field(1, name) + told))
    return _message([*fields, *([_field(7, domain)] if domain else [])])


def model(
    name: str,
    nodes: Sequence[Message],
    constants: Mapping[str, NDArray[Any]],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape],
) -> bytes:
    """A ModelProto, ready for a session.

    Parameters
    ----------
    name
        Of the graph.
    nodes
        Made by :func:`node`, each after those whose outputs it takes.
    constants
        Arrays that nodes take by name: float32, or whole numbers of 8, 32 or 64 bits.
    inputs, outputs
        Shapes of the float32 arrays that go in and come out.
    """
    graph = _message(  # GraphProto
        [
            *(_field(1, each) for each in nodes),
            _field(2, name),
            *(_field(5, _tensor(key, array)) for key, array in constants.items()),
            *(_field(11, _value_info(key, shape)) for key, shape in inputs.items()),
            *(_field(12, _value_info(key, shape)) for key, shape in outputs.items()),
        ]
    )
    # OperatorSetIdProto: domain (ONNX's own is empty), version
    opsets = _message(
        _field(8, _field(1, domain) + _field(2, version)) for domain, version in (("", OPSET), (MICROSOFT, 1))
    )
    return b"".join(_field(1, IR_VERSION) + _field(2, "samaf") + _field(7, graph) + opsets)


def _tensor(name: str, array: NDArray[Any]) -> Message:
    """A TensorProto: dims, data_type, name, raw_data (little-endian, rows first)."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    dims = _message(_field(1, length) for length in little.shape)
    data_type = _DATA_TYPES[little.dtype.str]
    return dims + _field(2, data_type) + _field(8, name) + _field(9, little.tobytes())


def _value_info(name: str, shape: Shape) -> Message:
    """A ValueInfoProto: name, type; the type is a TypeProto, its tensor_type has an elem_type and a shape."""
    # TensorShapeProto: Dimensions, each a dim_value or a dim_param
    dims = _message(_field(1, _field(2 if isinstance(d, str) else 1, d)) for d in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, _FLOAT) + _field(2, dims)))


def _message(fields: Iterable[Message]) -> Message:
    return list(chain.from_iterable(fields))


def _field(number: int, value: int | str | bytes | Message) -> Message:
    if isinstance(value, int):
        return [_varint(number << 3) + _varint(value)]
    if isinstance(value, str):
        value = value.encode()
    pieces = [value] if isinstance(value, bytes) else value
    return [_varint(number << 3 | 2) + _varint(sum(map(len, pieces))), *pieces]


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the top bit says that more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
