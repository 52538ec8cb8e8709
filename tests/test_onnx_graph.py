"""The ONNX writer: the package `onnx` reads what it writes, and finds nothing wrong."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from samaf import onnx_graph
from samaf.bodies import Lstm
from samaf.encoder import _graph
from samaf.features import FRONT_ENDS
from samaf.weights import Weights


def test_every_field_is_read_back() -> None:
    array = np.arange(300, dtype=np.float32).reshape(1, 3, 100)
    whole = {kind: np.array([[1, 0], [-1, 7]]).astype(kind) for kind in ("uint8", "int8", "int32", "int64")}
    data = onnx_graph.model(
        "größe",
        [
            onnx_graph.node("MatMul", ["x", "a"], ["y"]),
            onnx_graph.node("Concat", ["y", "", "y"], ["z"], axis=2),
            onnx_graph.node("Some", ["z"], ["q"], domain=onnx_graph.MICROSOFT, how="SAME", sizes=[3, 300, 0]),
        ],
        {"a": array, "strided": array.T, **whole},
        inputs={"x": ("n", 2**31, 3)},
        outputs={"z": (1, "n", 200)},
    )
    read = onnx.load_from_string(data)
    assert (read.ir_version, read.producer_name, read.graph.name) == (onnx_graph.IR_VERSION, "samaf", "größe")
    opsets = [("", onnx_graph.OPSET), (onnx_graph.MICROSOFT, 1)]
    assert [(each.domain, each.version) for each in read.opset_import] == opsets
    assert list(read.graph.node) == [
        helper.make_node("MatMul", ["x", "a"], ["y"]),
        helper.make_node("Concat", ["y", "", "y"], ["z"], axis=2),
        helper.make_node("Some", ["z"], ["q"], domain=onnx_graph.MICROSOFT, how="SAME", sizes=[3, 300, 0]),
    ]
    stored = {each.name: numpy_helper.to_array(each) for each in read.graph.initializer}
    assert list(stored) == ["a", "strided", *whole]
    for name, numbers in whole.items():
        assert stored[name].dtype == numbers.dtype
        np.testing.assert_array_equal(stored[name], numbers)
    np.testing.assert_array_equal(stored["a"], array)
    np.testing.assert_array_equal(stored["strided"], array.T)
    assert list(read.graph.input) == [
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 2**31, 3])
    ]
    assert list(read.graph.output) == [
        helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, "n", 200])
    ]


@pytest.mark.parametrize(("front_end", "stack", "units"), [("log-mel", 4, 384), ("mfcc", 5, 7)])
def test_the_encoder_is_a_sound_model(front_end: str, stack: int, units: int) -> None:
    inputs = FRONT_ENDS[front_end][0].n_values * stack
    body = Lstm(inputs, units)
    shapes = {**body.shapes(), "dense": (units, 256), "dense_bias": (256,)}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    weights = Weights(front_end, stack, (128, 256), body, arrays)
    graph = _graph(weights, 128, weights.floats)
    onnx.checker.check_model(graph, full_check=True)  # with the shapes of all values inferred
