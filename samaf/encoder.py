"""Audio -> Fingerprint, from a weights file, without TensorFlow.

The network runs on onnxruntime, on one core in the thread that calls: callers with many files use threads of their own.

Measured by ``python bench/encoder_backends.py`` (384 units, one core of a Zen 5 processor, batches of 41 and of 128
windows), in the time that onnxruntime takes: numpy takes 2.2 and 1.8, LiteRT 1.3 and 1.0. That is with numpy's AVX2
products, which its OpenBLAS chooses there; with its AVX-512 products (``OPENBLAS_CORETYPE=SkylakeX``) numpy takes 1.4
and 1.1. Compiling with numba what is not a product gains numpy nothing. With weights of 8 bits, on a processor with
VNNI, onnxruntime itself takes 0.39 and 0.40. Loading onnxruntime and making the session
cost a process some 40 ms once (``--starts``).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samaf import onnx_graph
from samaf.audio import SAMPLE_RATE
from samaf.errors import AudioError, ModelError, shown
from samaf.features import (
    FRAMES_PER_SECOND,
    FRONT_ENDS,
    WINDOW_FRAMES,
    frames_of,
    restored_log_mel,
)
from samaf.fingerprint import Fingerprint
from samaf.isolated import IsolatedStream
from samaf.onnx_runtime import session, whole_products
from samaf.packed import Stored
from samaf.settings import BITS, QUERY_HOP_S, REFERENCE_HOP_S
from samaf.stream import HashStream, Rows, Windows, joined
from samaf.weights import DEFAULT_PATH, Weights

_MOST_LOG_SCALE = 16.0
"""Logarithm of the most that clarity multiplies activations by: with no weights are they infinite."""

Float32 = NDArray[np.float32]
PathLike = str | os.PathLike[str]


def load_weights(path: PathLike) -> Weights:
    """Weights of a file, made for a front end that there is.

    Raises
    ------
    ModelError
        If the file cannot be read, or there is none such.
    """
    weights = Weights.load(path)
    values = FRONT_ENDS[weights.front_end][0].n_values if weights.front_end in FRONT_ENDS else 0
    if values * weights.stack != weights.n_inputs or WINDOW_FRAMES % weights.stack:
        raise ModelError(f"{shown(path)}: made for a front end that this samaf does not have; update samaf")
    return weights


class Network:
    """The encoder half of the autoencoder, as a session of onnxruntime; any number of threads may call one.

    A row of what it gives depends on its own window alone: bit for bit the same, however many windows go with it. With
    products of whole numbers (:class:`samaf.bodies.Lstm` in 8 bits) it is nearly so: one bit in some 300 may differ.

    Parameters
    ----------
    weights
        A loaded weights file.
    bits
        Code length, one of ``weights.bits``.
    """

    def __init__(self, weights: Weights, bits: int) -> None:
        self.n_inputs = weights.n_inputs
        self._made_of = weights, bits
        arrays = weights.arrays if weights.is_packed and whole_products() else weights.floats
        self._session = session(_graph(weights, bits, arrays))

    def __call__(self, windows: Float32) -> Float32:
        """Pre-sign activations (n, bits) of normalised windows (n, steps, inputs), scaled by each window's clarity."""
        out = np.empty((len(windows), self._made_of[1]), np.float32)
        batch = self._made_of[0].body.batch
        for at in range(0, len(windows), batch):
            some = np.ascontiguousarray(windows[at : at + batch], np.float32)
            out[at : at + batch] = self._session.run(None, {"windows": some})[0]
        return out

    def __reduce__(self) -> tuple[type[Network], tuple[Weights, int]]:
        return Network, self._made_of  # a session cannot be pickled


def _graph(weights: Weights, bits: int, arrays: Stored) -> bytes:
    """ONNX model: "windows" (n, steps, inputs) -> "activations" (n, bits)."""
    clarity = np.zeros(weights.units + 1, np.float32) if weights.clarity is None else weights.clarity
    body = weights.body.graph(arrays)
    node = onnx_graph.node
    return onnx_graph.model(
        "encoder",
        [
            *body.nodes,
            node("MatMul", ["state", "dense"], ["product"]),
            node("Add", ["product", "dense_bias"], ["bare"]),
            node("MatMul", ["state", "clarity"], ["clear"]),
            node("Add", ["clear", "clarity_bias"], ["log_scale"]),
            node("Min", ["log_scale", "most"], ["bounded"]),
            node("Exp", ["bounded"], ["scale"]),
            node("Mul", ["bare", "scale"], ["activations"]),
        ],
        constants={
            **body.constants,
            "dense": weights.floats["dense"][:, :bits],
            "dense_bias": weights.floats["dense_bias"][:bits],
            "clarity": clarity[:-1, None],
            "clarity_bias": clarity[-1:],
            "most": np.array([_MOST_LOG_SCALE], np.float32),
        },
        inputs={"windows": ("n", WINDOW_FRAMES // weights.stack, weights.n_inputs)},
        outputs={"activations": ("n", bits)},
    )


class Encoder:
    """Turns audio into fingerprints.

    Parameters
    ----------
    model
        A weights file; None takes the model that ships.
    bits
        Code length: 64, 128 or 256 with the model that ships.
    query_hop_s
        Seconds from hash to hash in a query: what the index asks for that is searched, as a `Library`'s encoder has it.

    Attributes
    ----------
    weights : Weights
    bits : int
    query_hop_s : float
    model_id : str

    Raises
    ------
    ModelError
        If the weights file cannot be read, or has no code of that length.

    Examples
    --------
    >>> import numpy as np
    >>> from samaf import Encoder
    >>> tone = np.sin(np.arange(48000) * np.arange(48000) / 4e5).astype(np.float32)
    >>> Encoder(bits=128).encode(tone).hashes.shape
    (3, 2)
    """

    def __init__(
        self, model: PathLike | None = None, *, bits: int = BITS, query_hop_s: float = QUERY_HOP_S
    ) -> None:
        self.path = Path(model) if model is not None else DEFAULT_PATH
        self.weights = load_weights(self.path)
        if bits not in self.weights.bits:
            lengths = ", ".join(map(str, self.weights.bits))
            raise ModelError(
                f"{shown(self.path)}: the model has no code of {bits} bits; choose one of {lengths}"
            )
        self.bits, self.query_hop_s = bits, query_hop_s
        self.model_id = self.weights.model_id
        self._network = Network(self.weights, bits)

    @property
    def macs(self) -> int:
        """Multiplications with addition that the network needs for one hash."""
        body = self.weights.body.macs(WINDOW_FRAMES // self.weights.stack)
        return body + self.weights.units * self.bits

    def encode(
        self,
        audio: PathLike | Float32,
        *,
        hop_s: float = REFERENCE_HOP_S,
        confidence: bool = False,
        overhang: bool = False,
    ) -> Fingerprint:
        """Fingerprint of a file, or of 16 kHz mono samples.

        Parameters
        ----------
        audio
            A path, or float32 (n,) samples at 16 kHz.
        hop_s
            Seconds from hash to hash, a multiple of 0.01.
        confidence
            Keep each bit's |pre-sign activation|, scaled by the clarity of its window: what a query needs.
        overhang
            Let windows begin before the audio and end after it, as long as a quarter of them lies in it. The
            stored windows of a recording meet a clip's ends like that. A reference needs none of them.

        Returns
        -------
        Fingerprint
            ``1 + floor((T - 1) / hop_s)`` hashes for ``T`` seconds, and those that overhang.

        Raises
        ------
        AudioError
            If the audio cannot be read, is shorter than 1 s, or holds NaN or infinity.
        ValueError
            If the samples are not one channel of floats, or the hop is no multiple of 0.01 s up to 10 s.
        """
        blocks: Iterable[Float32]
        if isinstance(audio, (str, os.PathLike)):
            blocks, name = IsolatedStream(audio), shown(audio)
        else:
            blocks, name = [audio], "samples"
        return self.encode_stream(blocks, hop_s=hop_s, confidence=confidence, overhang=overhang, name=name)

    def encode_query(self, audio: PathLike | Float32, *, hop_s: float | None = None) -> Fingerprint:
        """Fingerprint with confidence and overhanging windows: what :meth:`samaf.search.Searcher.search` takes.

        Like :meth:`encode`, with `hop_s` by default the encoder's `query_hop_s`.
        """
        return self.encode(
            audio, hop_s=self.query_hop_s if hop_s is None else hop_s, confidence=True, overhang=True
        )

    def encode_stream(
        self,
        blocks: Iterable[Float32],
        *,
        hop_s: float = REFERENCE_HOP_S,
        confidence: bool = False,
        overhang: bool = False,
        name: str = "stream",
    ) -> Fingerprint:
        """Like :meth:`encode`, from blocks of samples of any size; `name` is for the error message."""
        stream = self.stream(hop_s=hop_s, confidence=confidence, overhang=overhang, name=name)

        def parts() -> Iterator[Rows]:
            for block in blocks:
                yield stream.feed(block)
            yield stream.close()

        rows = joined(parts())
        if stream.duration_s < 1.0:
            whole_ms = math.floor(1000.0 * stream.duration_s) / 1000.0
            raise AudioError(f"{name}: {whole_ms:.3f} s of audio; at least 1 s is needed for a hash")
        return self._fingerprint(rows, hop_s, stream.duration_s)

    def stream(
        self,
        *,
        hop_s: float = REFERENCE_HOP_S,
        confidence: bool = False,
        overhang: bool = False,
        name: str = "stream",
    ) -> HashStream:
        """Open a stream: samples go in as they come, hashes come out as soon as their windows are complete.

        All its rows together are those that :meth:`encode` gives of all its samples, bit for bit, whatever the blocks
        that they come in; with a model in 8 bits, all but one bit in some 300 (see :mod:`samaf.stream`). Its memory
        stays the same, however long it runs.

        Parameters
        ----------
        hop_s, confidence, overhang
            As for :meth:`encode`. With `overhang`, rows come 30 ms later, and those at the end when it is closed.
        name
            For error messages.

        Raises
        ------
        ValueError
            If the hop is no multiple of 0.01 s up to 10 s.

        Examples
        --------
        >>> import numpy as np
        >>> from samaf import Encoder
        >>> stream = Encoder().stream(hop_s=0.5)
        >>> tone = np.sin(np.arange(48000) * np.arange(48000) / 4e5).astype(np.float32)
        >>> for block in np.split(tone, 6):
        ...     rows = stream.feed(block)
        ...     print(stream.duration_s, len(rows), rows.start_s)
        0.5 0 0.0
        1.0 0 0.0
        1.5 1 0.0
        2.0 1 0.5
        2.5 1 1.0
        3.0 1 1.5
        >>> len(stream.close())
        1
        """
        windows = self._windows(hop_s, confidence=confidence, overhang=overhang)
        return HashStream(windows, self.weights.front_end, name)

    def sketches(
        self, samples: Float32, speeds: Iterable[float], *, hop_s: float
    ) -> Iterator[tuple[float, Fingerprint]]:
        """(speed, query fingerprint) of a clip restored from each of some speeds, near enough to choose one.

        The frames are stretched and shifted, not the samples, so that each costs little more than its hashes. Only for
        the log-mel front end; with another there are none. Speeds at which less than 1 s is left are passed over.
        """
        if self.weights.front_end != "log-mel":
            return
        frames, levels = frames_of(FRONT_ENDS["log-mel"][0](), samples)
        for speed in speeds:
            if round(len(samples) * speed) < SAMPLE_RATE:
                continue
            played = restored_log_mel(frames, levels, speed)
            rows = self._windows(hop_s, confidence=True, overhang=False).push(*played)
            if len(rows):
                yield speed, self._fingerprint(rows, hop_s, len(played[0]) / FRAMES_PER_SECOND)

    def _windows(self, hop_s: float, *, confidence: bool, overhang: bool) -> Windows:
        return Windows(
            self._network,
            self.bits,
            self.weights.front_end,
            hop_s=hop_s,
            confidence=confidence,
            overhang=overhang,
        )

    def _fingerprint(self, rows: Rows, hop_s: float, duration_s: float) -> Fingerprint:
        return Fingerprint(
            hashes=rows.hashes,
            valid=rows.valid,
            hop_s=hop_s,
            bits=self.bits,
            model_id=self.model_id,
            duration_s=duration_s,
            confidence=rows.confidence,
            start_s=rows.start_s,
            known=rows.known,
        )
