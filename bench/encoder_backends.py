"""Which way of running the encoder's network is the fastest on one core.

Runs the same network with onnxruntime (what :mod:`samaf.encoder` does), the same with weights of 8 bits, with numpy,
with numpy and numba, and with LiteRT; checks that all give the same activations, or nearly; prints the processor time
of each. A way whose libraries are not
installed is left out::

    pip install onnx ai-edge-litert tensorflow
    python bench/encoder_backends.py
    python bench/encoder_backends.py --starts     what whole processes take that import a library or encode a query

The repeats of all ways are interleaved and their medians taken, so that a busy machine treats them alike.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs in a checkout without installation

import numba
import numpy as np
from numpy.typing import NDArray

from samaf.bodies import Lstm
from samaf.encoder import Network
from samaf.features import FRONT_ENDS, WINDOW_FRAMES
from samaf.settings import QUERY_HOP_S, REFERENCE_HOP_S
from samaf.weights import Weights

Float32 = NDArray[np.float32]
Run = Callable[[Float32], Float32]

# Seconds of audio for a number of windows: few windows are a query's, many are those of a library.
QUERY_WINDOWS = 41
LIBRARY_WINDOWS = 128
TOLERANCE, TOLERANCE_INT8 = 1e-3, 0.1


def random_weights(units: int, bits: int, seed: int = 0) -> Weights:
    """An untrained network of the shipped model's shape, with weights of the size of trained ones."""
    rng = np.random.default_rng(seed)
    stack = 4
    inputs = FRONT_ENDS["log-mel"][0].n_values * stack

    def normal(*shape: int) -> Float32:
        return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)

    body = Lstm(inputs, units)
    shapes = {**body.shapes(), "dense": (units, bits), "dense_bias": (bits,)}
    return Weights("log-mel", stack, (bits,), body, {name: normal(*shape) for name, shape in shapes.items()})


def onnxruntime_runner(weights: Weights, batch: int) -> Run:
    """What samaf does."""
    return Network(weights, weights.bits[-1])


def int8_runner(weights: Weights, batch: int) -> Run:
    """What samaf does with weights of 8 bits: products of whole numbers, where the processor has them."""
    return Network(weights.quantised("int8"), weights.bits[-1])


class NumpyNetwork:
    """The network in numpy: one matrix product a step, one hyperbolic tangent over all four gates.

    A logistic function is a shifted tangent; its scale is folded into the weights once.
    """

    def __init__(self, weights: Weights) -> None:
        units = weights.units
        scale = np.full(4 * units, 0.5, np.float32)
        scale[2 * units : 3 * units] = 1.0  # the candidate's gate is a tangent already
        self.units, self.n_inputs = units, weights.n_inputs
        floats = weights.floats
        self.gates = np.concatenate([floats["kernel"], floats["recurrent"]]) * scale
        self.bias = floats["bias"] * scale
        self.dense, self.dense_bias = floats["dense"], floats["dense_bias"]

    def __call__(self, windows: Float32) -> Float32:
        """Pre-sign activations (n, bits) of windows (n, steps, inputs)."""
        n, steps, _ = windows.shape
        u = self.units
        seen = np.zeros((n, self.n_inputs + u), np.float32)
        state, hidden = np.zeros((n, u), np.float32), seen[:, self.n_inputs :]
        gates = np.empty((n, 4 * u), np.float32)
        for t in range(steps):
            seen[:, : self.n_inputs] = windows[:, t]
            np.matmul(seen, self.gates, out=gates)
            gates += self.bias
            np.tanh(gates, out=gates)
            i, f, g, o = (gates[:, k * u : (k + 1) * u] for k in range(4))
            # logistic(x) = (1 + tanh(x / 2)) / 2
            f += 1.0
            state *= f
            i += 1.0
            i *= g
            state += i
            state *= 0.5
            np.tanh(state, out=hidden)
            o += 1.0
            hidden *= o
            hidden *= 0.5
        return hidden @ self.dense + self.dense_bias


def numpy_runner(weights: Weights, batch: int) -> Run:
    """Numpy alone."""
    return NumpyNetwork(weights)


@numba.njit(inline="always", fastmath=True)
def _tanh(x):  # type: ignore[no-untyped-def]
    """Rational approximation of tanh on +-7.9 (the one of Eigen), good to 3e-7; it becomes vector instructions."""
    x = max(np.float32(-7.9), min(np.float32(7.9), x))
    s = x * x
    p = np.float32(-2.76076847742355e-16)
    p = p * s + np.float32(2.00018790482477e-13)
    p = p * s + np.float32(-8.60467152213735e-11)
    p = p * s + np.float32(5.12229709037114e-08)
    p = p * s + np.float32(1.48572235717979e-05)
    p = p * s + np.float32(6.37261928875436e-04)
    p = p * s + np.float32(4.89352455891786e-03)
    q = np.float32(1.19825839466702e-06)
    q = q * s + np.float32(1.18534705686654e-04)
    q = q * s + np.float32(2.26843463243900e-03)
    q = q * s + np.float32(4.89352518554385e-03)
    return x * p / q


@numba.njit(fastmath=True, nogil=True)
def _update(gates, bias, state, hidden):  # type: ignore[no-untyped-def]
    """One pass over the gates instead of ten; those of i, f and o come halved."""
    half, one = np.float32(0.5), np.float32(1.0)
    n, u = state.shape
    for row in range(n):
        for k in range(u):
            i = _tanh(gates[row, k] + bias[k])
            f = _tanh(gates[row, u + k] + bias[u + k])
            c = _tanh(gates[row, 2 * u + k] + bias[2 * u + k])
            o = _tanh(gates[row, 3 * u + k] + bias[3 * u + k])
            s = half * ((f + one) * state[row, k] + (i + one) * c)
            state[row, k] = s
            hidden[row, k] = half * (o + one) * _tanh(s)


def numba_runner(weights: Weights, batch: int) -> Run:
    """Matrix products by numpy, everything else fused by numba."""
    network = NumpyNetwork(weights)
    inputs, units = network.n_inputs, network.units

    def run(windows: Float32) -> Float32:
        n, steps, _ = windows.shape
        seen = np.zeros((n, inputs + units), np.float32)
        state = np.zeros((n, units), np.float32)
        gates = np.empty((n, 4 * units), np.float32)
        for t in range(steps):
            seen[:, :inputs] = windows[:, t]
            np.matmul(seen, network.gates, out=gates)
            _update(gates, network.bias, state, seen[:, inputs:])
        return seen[:, inputs:] @ network.dense + network.dense_bias

    return run


def litert_runner(weights: Weights, batch: int) -> Run:
    """LiteRT on a Keras LSTM, unrolled: that spares it the bookkeeping of a loop."""
    import keras
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    steps, inputs = WINDOW_FRAMES // weights.stack, weights.n_inputs
    lstm = keras.layers.LSTM(weights.units, unroll=True)
    dense = keras.layers.Dense(weights.bits[-1])
    model = keras.Sequential([keras.Input((steps, inputs), batch_size=batch), lstm, dense])
    floats = weights.floats
    lstm.set_weights([floats["kernel"], floats["recurrent"], floats["bias"]])
    dense.set_weights([floats["dense"], floats["dense_bias"]])
    shape = tf.TensorSpec((batch, steps, inputs), tf.float32)
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(shape)
    content = tf.lite.TFLiteConverter.from_concrete_functions([function], model).convert()
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    place, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(windows: Float32) -> Float32:
        interpreter.set_tensor(place, windows)
        interpreter.invoke()
        return interpreter.get_tensor(result)

    return run


RUNNERS = {
    "onnxruntime": onnxruntime_runner,
    "... in 8 bits": int8_runner,
    "numpy": numpy_runner,
    "numpy + numba": numba_runner,
    "LiteRT": litert_runner,
}


def measure(weights: Weights, batch: int, repeats: int) -> dict[str, float]:
    """Median processor time of each way, in seconds."""
    shape = (batch, WINDOW_FRAMES // weights.stack, weights.n_inputs)
    windows = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    runs: dict[str, Run] = {}
    expected = NumpyNetwork(weights)(windows)
    for name, make in RUNNERS.items():
        try:
            runs[name] = make(weights, batch)
        except ImportError as error:
            print(f"{name}: left out, {error}", file=sys.stderr)
            continue
        worst = float(np.abs(runs[name](windows) - expected).max())
        if worst > (TOLERANCE_INT8 if make is int8_runner else TOLERANCE):
            raise SystemExit(f"{name} differs from numpy by {worst:.2g}")
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            run(windows)
            times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def measure_starts(weights: Weights, repeats: int) -> None:
    """Median processor time of whole processes, printed."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "random.npz")
        weights.save(path)
        query = (
            "import numpy as np\nfrom samaf.encoder import Encoder\n"
            "samples = np.random.default_rng(0).standard_normal(80000).astype(np.float32)\n"
            f"Encoder({path!r}, bits={weights.bits[-1]}).encode_query(samples)"
        )
        codes = {
            "import numpy": "import numpy",
            "... onnxruntime": "import numpy, onnxruntime",
            "... and onnx": "import numpy, onnxruntime, onnx",
            "5 s query": query,
        }
        times: dict[str, list[float]] = {name: [] for name in codes}
        env = {**os.environ, "PYTHONPATH": sys.path[0]}
        for _ in range(repeats):
            for name, code in codes.items():
                before = resource.getrusage(resource.RUSAGE_CHILDREN)
                subprocess.run([sys.executable, "-c", code], check=True, env=env, cwd=folder)
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                times[name].append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    for name, values in times.items():
        print(f"{name:16}{1e3 * statistics.median(values):8.0f} ms")


def main() -> None:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, help="a weights file (default: a random network)")
    parser.add_argument("--units", type=int, default=384, help="size of the random network's LSTM")
    parser.add_argument("--bits", type=int, default=256, help="length of the random network's code")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--starts", action="store_true", help="measure whole processes instead")
    options = parser.parse_args()
    weights = (
        Weights.load(options.weights) if options.weights else random_weights(options.units, options.bits)
    )
    if options.starts:
        measure_starts(weights, options.repeats)
        return
    print(f"LSTM of {weights.units} units, {weights.bits[-1]} bits, one core, {options.repeats} repeats")
    print(f"{'':16}{'windows':>8}{'ms':>9}{'x real time':>13}{'numpy / it':>12}")
    for batch, hop_s in ((QUERY_WINDOWS, QUERY_HOP_S), (LIBRARY_WINDOWS, REFERENCE_HOP_S)):
        audio_s = 1.0 + (batch - 1) * hop_s
        found = measure(weights, batch, options.repeats)
        for name, value in found.items():
            print(
                f"{name:16}{batch:8d}{1e3 * value:9.1f}{audio_s / value:13,.0f}{found['numpy'] / value:12.2f}"
            )


if __name__ == "__main__":
    main()
