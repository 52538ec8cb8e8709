"""onnxruntime, loaded without its telemetry: what runs a network on it takes a session from here.

Left to itself it looks up a host on the net as it is loaded, and keeps a number for the device in the cache folder. Its
``disable_telemetry_events()`` comes too late for both. It reads the first of these names, its documentation gives the
second. Whoever has set them already keeps what they set.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np

from samaf import onnx_graph

for _name in ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):
    os.environ.setdefault(_name, "1")

import onnxruntime  # noqa: E402

__all__ = ["onnxruntime", "session", "whole_products"]


def session(model: bytes) -> Any:
    """A session that works in its caller's thread alone."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    # An arena would keep the memory of as many calls as ever ran at once; without one it is no slower.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@cache
def whole_products() -> bool:
    """Whether products of numbers of 8 bits are exact here, and so fast.

    x86 processors without VNNI make them of sums that stop at 16 bits, which spoils them and is no faster than float32.
    """
    n = 64
    model = onnx_graph.model(
        "products",
        [
            onnx_graph.node("MatMulInteger", ["a", "b"], ["sums"]),
            onnx_graph.node("Cast", ["sums"], ["told"], to=1),
        ],
        {"a": np.full((n, n), 255, np.uint8), "b": np.full((n, n), 127, np.int8)},
        inputs={},
        outputs={"told": (n, n)},
    )
    return bool((session(model).run(None, {})[0] == 255 * 127 * n).all())
