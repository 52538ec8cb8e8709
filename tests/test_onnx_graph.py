"""The ONNX writer: the package `onnx` reads what it writes, and finds nothing wrong."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from samaf import onnx_graph
from samaf.encoder import _graph
from samaf.features import FRONT_ENDS
from samaf.weights import Weights


def test_every_field_is_read_back() -> None:
    array = np.arange(300, dtype=np.float32).reshape(1, 3, 100)
    data = onnx_graph.model(
        "größe",
        [
            onnx_graph.node("MatMul", ["x", "a"], ["y"]),
            onnx_graph.node("Concat", ["y", "", "y"], ["z"], axis=2),
        ],
        {"a": array, "strided": array.T},
        inputs={"x": ("n", 2**31, 3)},
        outputs={"z": (1, "n", 200)},
    )
    read = onnx.load_from_string(data)
    assert (read.ir_version, read.producer_name, read.graph.name) == (onnx_graph.IR_VERSION, "samaf", "größe")
    assert [(each.domain, each.version) for each in read.opset_import] == [("", onnx_graph.OPSET)]
    assert list(read.graph.node) == [
        helper.make_node("MatMul", ["x", "a"], ["y"]),
        helper.make_node("Concat", ["y", "", "y"], ["z"], axis=2),
    ]
    stored = {each.name: numpy_helper.to_array(each) for each in read.graph.initializer}
    assert list(stored) == ["a", "strided"]
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
    shapes = [(inputs, 4 * units), (units, 4 * units), (4 * units,), (units, 256), (256,)]
    weights = Weights(front_end, stack, (128, 256), *(np.zeros(shape, np.float32) for shape in shapes))
    onnx.checker.check_model(_graph(weights, 128), full_check=True)  # with the shapes of all values inferred
