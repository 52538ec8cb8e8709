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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samaf import onnx_graph
from samaf.audio import SAMPLE_RATE
from samaf.errors import AudioError, ModelError, shown
from samaf.features import (
    FRAMES_PER_SECOND,
    FRONT_ENDS,
    WINDOW_FRAMES,
    FrontEnd,
    fill_missing,
    frames_of,
    restored_log_mel,
)
from samaf.fingerprint import Fingerprint, confidence_of, mark_rows
from samaf.isolated import IsolatedStream
from samaf.onnx_runtime import session, whole_products
from samaf.packed import Stored
from samaf.settings import BITS, QUERY_HOP_S, REFERENCE_HOP_S
from samaf.weights import DEFAULT_PATH, Weights

SILENCE_LEVEL = 10.0 ** (-75.0 / 10.0)
"""A window whose mean square is under this (-75 dBFS) has no content."""
FLAT_SPREAD = 0.03
"""A window whose normalised values spread less than this is flat over time and band: it has no content."""

EDGE_FRAMES = 3
"""Frames at each end of a clip that count as missing where windows overhang: padding is half of what they hear."""
LEAST_KNOWN = 0.25
"""Share of a window that must lie in the clip; of less, too few bits are right to find or to judge anything by."""

_MOST_LOG_SCALE = 16.0
"""Logarithm of the most that clarity multiplies activations by: with no weights are they infinite."""
_PEAK = 2.0**32
"""Larger samples are no audio (the bound that decoding has too), and powers of them would overflow."""

Float32 = NDArray[np.float32]
PathLike = str | os.PathLike[str]


Part = tuple[Float32, Float32, NDArray[np.bool_]]
"""Frames, their levels, and which of them are known."""


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
            If the samples are not one channel of floats, or the hop is no multiple of 0.01 s.
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
        seconds = _Counter()
        parts = _with_end(FRONT_ENDS[self.weights.front_end][0](), seconds.count(blocks, name))
        made = self._of_frames(parts, hop_s, confidence=confidence, overhang=overhang)
        if made is None or seconds.total_s < 1.0:
            raise AudioError(f"{name}: {seconds.total_s:.3f} s of audio; at least 1 s is needed for a hash")
        return replace(made, duration_s=seconds.total_s)

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
            made = self._of_frames([played], hop_s, confidence=True, overhang=False)
            if made is not None:
                yield speed, made

    def _of_frames(
        self, parts: Iterable[tuple[Float32, Float32]], hop_s: float, *, confidence: bool, overhang: bool
    ) -> Fingerprint | None:
        """Fingerprint of frames and their levels; None if they are fewer than a window has."""
        hop = _hop_frames(hop_s)
        lead = int((1.0 - LEAST_KNOWN) * WINDOW_FRAMES - EDGE_FRAMES) // hop * hop if overhang else 0
        rows, valid, shares, confidence_rows = _Rows(), _Rows(), _Rows(), _Rows()
        n_frames = 0

        def counted() -> Iterator[tuple[Float32, Float32]]:
            nonlocal n_frames
            for frames, levels in parts:
                n_frames += len(frames)
                yield frames, levels

        known_parts = _overhung(counted(), lead) if overhang else _all_known(counted())
        for out, good, known in self._activations(known_parts, hop):
            rows.add(_pack(out, good))
            valid.add(good)
            shares.add(known)
            if confidence:
                confidence_rows.add(confidence_of(out))
        if not rows.n or n_frames < WINDOW_FRAMES:
            return None
        return Fingerprint(
            hashes=rows.array(),
            valid=valid.array(),
            hop_s=hop_s,
            bits=self.bits,
            model_id=self.model_id,
            duration_s=n_frames / FRAMES_PER_SECOND,
            confidence=confidence_rows.array() if confidence else None,
            start_s=-lead / FRAMES_PER_SECOND,
            known=shares.array() if overhang else None,
        )

    def _activations(
        self, parts: Iterable[Part], hop: int
    ) -> Iterator[tuple[Float32, NDArray[np.bool_], Float32]]:
        """(pre-sign activations (k, bits), valid (k,), known share (k,)) of successive windows, some at a time."""
        front_end, normalise = FRONT_ENDS[self.weights.front_end]
        frames = np.empty((0, front_end.n_values), np.float32)
        levels = np.empty(0, np.float32)
        known = np.empty(0, np.bool_)
        start = 0  # of the next window, in frames of the buffer
        for new_frames, new_levels, is_known in parts:
            frames = np.concatenate([frames, new_frames])
            levels = np.concatenate([levels, new_levels])
            known = np.concatenate([known, is_known])
            while start + WINDOW_FRAMES <= len(frames):
                k = min(self.weights.body.batch, (len(frames) - start - WINDOW_FRAMES) // hop + 1)
                at = (start + hop * np.arange(k))[:, None] + np.arange(WINDOW_FRAMES)
                windows, there = frames[at], known[at]
                share = there.mean(axis=1, dtype=np.float32)
                if not there.all():
                    windows = fill_missing(windows, there)
                windows, spread = normalise(windows)
                level = np.einsum("nf,nf->n", levels[at], there.astype(np.float32)) / np.maximum(
                    share * WINDOW_FRAMES, 1.0
                )
                good = (level >= SILENCE_LEVEL) & (spread >= FLAT_SPREAD)
                yield self._network(windows.reshape(k, -1, self._network.n_inputs)), good, share
                start += k * hop
            keep = min(start, len(frames))
            frames, levels, known, start = frames[keep:], levels[keep:], known[keep:], start - keep


def _hop_frames(hop_s: float) -> int:
    hop = round(hop_s * FRAMES_PER_SECOND) if math.isfinite(hop_s) else 0
    if hop < 1 or abs(hop - hop_s * FRAMES_PER_SECOND) > 1e-6:
        raise ValueError(f"hop of {hop_s} s: must be a multiple of {1 / FRAMES_PER_SECOND} s")
    return hop


class _Rows:
    """Rows that come some at a time, in one array that grows.

    Kept as they come, small arrays would lie among the large ones that come and go with each batch, and keep the heap
    from using their places again: a search for twelve hours took three times the memory.
    """

    def __init__(self) -> None:
        self.n = 0
        self._array = np.empty(0)

    def add(self, rows: NDArray[Any]) -> None:
        if not self.n:
            self._array = np.empty((0, *rows.shape[1:]), rows.dtype)
        end = self.n + len(rows)
        if end > len(self._array):
            self._array.resize((end + end // 8, *rows.shape[1:]), refcheck=False)
        self._array[self.n : end] = rows
        self.n = end

    def array(self) -> NDArray[Any]:
        """All of them; none can be added after."""
        self._array.resize((self.n, *self._array.shape[1:]), refcheck=False)
        return self._array


class _Counter:
    """Counts the seconds that pass, and refuses blocks that are not audio."""

    def __init__(self) -> None:
        self.n_samples = 0

    @property
    def total_s(self) -> float:
        return self.n_samples / SAMPLE_RATE

    def count(self, blocks: Iterable[Float32], name: str) -> Iterator[Float32]:
        for block in map(np.asarray, blocks):
            if block.ndim != 1 or block.dtype.kind != "f":
                raise ValueError(
                    f"{name}: shape {block.shape} and type {block.dtype}; give one channel of float samples at "
                    "16 kHz (samaf.read_audio makes them)"
                )
            if len(block) and not (block.max() < _PEAK and block.min() > -_PEAK):  # a NaN fails both
                raise AudioError(f"{name}: holds NaN, infinite or absurdly large samples; decode it again")
            self.n_samples += len(block)
            yield block


def _all_known(parts: Iterable[tuple[Float32, Float32]]) -> Iterator[Part]:
    for frames, levels in parts:
        yield frames, levels, np.ones(len(frames), np.bool_)


def _overhung(parts: Iterable[tuple[Float32, Float32]], lead: int) -> Iterator[Part]:
    """The same frames with unknown ones before and after them; those next to the ends are not known either."""
    first = EDGE_FRAMES
    # the last frames: whether they end the audio is not known yet
    held: tuple[Float32, Float32] | None = None

    def unknown(frames: Float32, n: int) -> Part:
        return np.zeros((n, frames.shape[1]), np.float32), np.zeros(n, np.float32), np.zeros(n, np.bool_)

    def passed(frames: Float32, levels: Float32, last: int) -> Part:
        nonlocal first
        known = np.ones(len(frames), np.bool_)
        known[:first] = False
        first = max(0, first - len(frames))
        known[max(0, len(frames) - last) :] = False
        return frames, levels, known

    for frames, levels in parts:
        if held is None:
            yield unknown(frames, lead)
            held = frames, levels
            continue
        frames, levels = np.concatenate([held[0], frames]), np.concatenate([held[1], levels])
        cut = max(0, len(frames) - EDGE_FRAMES)
        yield passed(frames[:cut], levels[:cut], 0)
        held = frames[cut:], levels[cut:]
    if held is not None:
        yield passed(*held, EDGE_FRAMES)
        yield unknown(held[0], int((1.0 - LEAST_KNOWN) * WINDOW_FRAMES) - EDGE_FRAMES)


def _with_end(front_end: FrontEnd, blocks: Iterable[Float32]) -> Iterator[tuple[Float32, Float32]]:
    for block in blocks:
        yield front_end.push(block)
    yield front_end.finish()


def _pack(activations: Float32, valid: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Signs as uint64 words, zero in invalid rows."""
    words = np.packbits(activations > 0, axis=1, bitorder="little").view("<u8").astype(np.uint64)
    return mark_rows(words, valid)
