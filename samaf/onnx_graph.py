"""A minimal writer of ONNX models: what onnxruntime needs to run the encoder's network.

An ONNX model is a protobuf message. The package `onnx` could write it, but loading that costs every run of samaf some
60 ms (``python bench/encoder_backends.py --starts``), so the few messages that a small float32 graph is made of are
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

import numpy as np
from numpy.typing import NDArray

IR_VERSION = 8
OPSET = 17
"""Both of 2022: onnxruntime has read them since 1.12."""

_FLOAT = 1  # TensorProto.DataType
_INT = 2  # AttributeProto.AttributeType

Shape = Sequence[int | str]
"""Lengths of the dimensions; a name stands for one that is known at run time only."""
Message = list[bytes]
"""A message in pieces: joined at the very end, the arrays in it are copied once and not at every level."""


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: int) -> Message:
    """A NodeProto: one operator on named values; an empty name leaves an optional value out."""
    fields = [_field(1, name) for name in inputs] + [_field(2, name) for name in outputs]
    fields.append(_field(4, operator))
    for name, value in attributes.items():  # AttributeProto: name, i, type
        fields.append(_field(5, _field(1, name) + _field(3, value) + _field(20, _INT)))
    return _message(fields)


def model(
    name: str,
    nodes: Sequence[Message],
    constants: Mapping[str, NDArray[np.float32]],
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
        Arrays that nodes take by name.
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
    opset = _field(1, "") + _field(2, OPSET)  # OperatorSetIdProto: domain (ONNX's own), version
    return b"".join(_field(1, IR_VERSION) + _field(2, "samaf") + _field(7, graph) + _field(8, opset))


def _tensor(name: str, array: NDArray[np.float32]) -> Message:
    """A TensorProto: dims, data_type, name, raw_data (little-endian, rows first)."""
    dims = _message(_field(1, length) for length in array.shape)
    return dims + _field(2, _FLOAT) + _field(8, name) + _field(9, array.astype("<f4", copy=False).tobytes())


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
