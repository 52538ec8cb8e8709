"""Samples as they come -> hashes as soon as their windows are complete.

Whatever is encoded goes this way, a live stream as well as a file. A hash depends on its own window alone, and no step
from sample to sign on what else is computed at once. So the blocks in which samples come, and the windows that run
through the network together, change no bit. The one exception is a model in 8 bits on a processor that multiplies such
numbers (:mod:`samaf.bodies.lstm`): it rounds a window by what runs beside it, so that one bit in some 300 may differ.

What a whole recording has, and a stream has not before it is closed:

- the window that ends with the last sample, as the last frames hear a little beyond it, and then zeros;
- the windows that overhang the end; as the last frames before an end count as missing in them, every row of a stream
  that asks for overhang comes 30 ms later;
- the knowledge that there is a second at all, or that no sample of it is NaN: what came before has been hashed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from samaf.audio import SAMPLE_RATE
from samaf.errors import AudioError
from samaf.features import FRAMES_PER_SECOND, FRONT_ENDS, HOP, WINDOW_FRAMES, fill_missing
from samaf.fingerprint import confidence_of, mark_rows
from samaf.settings import check_hop

BATCH = 128
"""Windows that go through the network at once."""

SILENCE_LEVEL = 10.0 ** (-75.0 / 10.0)
"""A window whose mean square is under this (-75 dBFS) has no content."""
FLAT_SPREAD = 0.03
"""A window whose normalised values spread less than this is flat over time and band: it has no content."""

EDGE_FRAMES = 3
"""Frames at each end of a clip that count as missing where windows overhang: padding is half of what they hear."""
LEAST_KNOWN = 0.25
"""Share of a window that must lie in the clip; of less, too few bits are right to find or to judge anything by."""
_OVERHANG = int((1.0 - LEAST_KNOWN) * WINDOW_FRAMES) - EDGE_FRAMES
"""Frames by which windows overhang at most."""

_PEAK = 2.0**32
"""Larger samples are no audio (the bound that decoding has too), and powers of them would overflow."""

Float32 = NDArray[np.float32]


class WindowNetwork(Protocol):
    """What gives windows their codes; each row of its values depends on its own window alone, or nearly so."""

    n_inputs: int

    def __call__(self, windows: Float32) -> Float32:
        """Pre-sign activations (n, bits) of normalised windows (n, steps, n_inputs)."""
        ...


@dataclass(frozen=True, eq=False)
class Rows:
    """Successive hashes of a stream: what a :class:`~samaf.fingerprint.Fingerprint` has for each window.

    Attributes
    ----------
    start_s : float
        Where the window of the first row starts, in seconds of the stream; of the next row, if there is none.
    hashes : ndarray of uint64, shape (n, bits // 64)
    valid : ndarray of bool, shape (n,)
    confidence : ndarray of float16, shape (n, bits), or None
    known : ndarray of float32, shape (n,), or None
        Where windows overhang.
    """

    start_s: float
    hashes: NDArray[np.uint64]
    valid: NDArray[np.bool_]
    confidence: NDArray[np.float16] | None = None
    known: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.hashes)


def joined(parts: Iterable[Rows]) -> Rows:
    """Rows that come some at a time, at least once, as one.

    Their arrays grow as they come. Kept apart, small arrays would lie among the large ones that come and go with each
    batch, and keep the heap from using their places again: a search for twelve hours took three times the memory.
    """
    parts = iter(parts)
    first = next(parts)
    columns = {
        name: _Column(value)
        for name in ("hashes", "valid", "confidence", "known")
        if (value := getattr(first, name)) is not None
    }
    for rows in parts:
        for name, column in columns.items():
            column.add(getattr(rows, name))
    whole: dict[str, Any] = {name: column.array() for name, column in columns.items()}
    return replace(first, **whole)


class _Column:
    """An array that grows."""

    def __init__(self, rows: NDArray[Any]) -> None:
        self._array, self._n = rows.copy(), len(rows)

    def add(self, rows: NDArray[Any]) -> None:
        end = self._n + len(rows)
        if end > len(self._array):
            self._array.resize((end + end // 8, *rows.shape[1:]), refcheck=False)
        self._array[self._n : end] = rows
        self._n = end

    def array(self) -> NDArray[Any]:
        """All of it; nothing can be added after."""
        self._array.resize((self._n, *self._array.shape[1:]), refcheck=False)
        return self._array


class HashStream:
    """One endless signal on its way to hashes; :meth:`samaf.encoder.Encoder.stream` opens it.

    It holds no more than the samples of the next window and what the encoder works on at once, however long it runs.
    A stream belongs to one thread at a time; streams of one encoder may run side by side.

    Attributes
    ----------
    n_samples : int
        Samples that were fed.
    """

    def __init__(self, windows: Windows, front_end: str, name: str) -> None:
        self.n_samples = 0
        self._windows, self._name = windows, name
        self._front_end = FRONT_ENDS[front_end][0]()
        self._held = np.empty(BATCH * min(windows.hop, WINDOW_FRAMES) * HOP, np.float32)
        self._n_held = 0
        self._is_closed = False

    @property
    def duration_s(self) -> float:
        """Seconds that were fed."""
        return self.n_samples / SAMPLE_RATE

    def feed(self, samples: Float32) -> Rows:
        """Take samples; return the rows of the windows that are complete with them.

        A row comes with the sample 27 ms after its window (of the MFCC front end: 7.5 ms), which its last frame still
        hears; with overhang 30 ms later. A block that is refused leaves the stream as it was.

        Parameters
        ----------
        samples
            The next float samples (n,) at 16 kHz, any number of them. They are copied.

        Returns
        -------
        Rows
            Mostly none or one of a live stream, and as many as there are of a long block.

        Raises
        ------
        AudioError
            If a sample is NaN, infinite or absurdly large. To go on, feed as many zeros in place of the block.
        ValueError
            If the samples are not one channel of floats, or the stream is closed.
        """
        if self._is_closed:
            raise ValueError(f"{self._name}: is closed and takes no more samples; open another stream")
        return joined(self._taken(self._checked(samples)))

    def close(self) -> Rows:
        """End the stream; return the rows that its end completes, among them those that overhang it.

        A stream of less than 1 s has none of these. What is closed again has no more rows.
        """
        if self._is_closed:
            return self._windows.none
        self._is_closed = True
        return joined(self._ended())

    def _checked(self, samples: Float32) -> Float32:
        block = np.asarray(samples)
        if block.ndim != 1 or block.dtype.kind != "f":
            raise ValueError(
                f"{self._name}: shape {block.shape} and type {block.dtype}; give one channel of float samples at "
                "16 kHz (samaf.read_audio makes them)"
            )
        if len(block) and not -_PEAK < float(block.min()) <= float(block.max()) < _PEAK:  # a NaN fails
            raise AudioError(
                f"{self._name}: holds NaN, infinite or absurdly large samples; decode it again, or put silence there"
            )
        return block

    def _taken(self, block: Float32) -> Iterator[Rows]:
        """Hold samples until a window is complete, so that single ones cost little; a batch of windows at most."""
        yield self._windows.none
        while len(block):
            part = block[: len(self._held) - self._n_held]
            block = block[len(part) :]
            self._held[self._n_held : self._n_held + len(part)] = part
            self._n_held += len(part)
            self.n_samples += len(part)
            if self.n_samples >= self._windows.due * HOP + self._front_end.lookahead:
                yield self._run()

    def _run(self) -> Rows:
        held, self._n_held = self._held[: self._n_held], 0
        return self._windows.push(*self._front_end.push(held))

    def _ended(self) -> Iterator[Rows]:
        yield self._run()
        yield self._windows.push(*self._front_end.finish())
        yield self._windows.finish()


class Windows:
    """Cuts a stream of frames into windows and hashes them; what a window is, stands here.

    Parameters
    ----------
    network
        Gives windows their codes.
    bits
        Length of these.
    front_end
        Name of that which makes the frames.
    hop_s, confidence, overhang
        See :meth:`samaf.encoder.Encoder.encode`.

    Attributes
    ----------
    hop : int
        Frames from window to window.
    due : int
        Frames since the beginning with which the next window is complete.
    none : Rows
        No rows.

    Raises
    ------
    ValueError
        If the hop is no multiple of 0.01 s up to 10 s.
    """

    def __init__(
        self,
        network: WindowNetwork,
        bits: int,
        front_end: str,
        *,
        hop_s: float,
        confidence: bool,
        overhang: bool,
    ) -> None:
        check_hop(hop_s)
        self.hop = round(hop_s * FRAMES_PER_SECOND)
        made_by, self._normalise = FRONT_ENDS[front_end]
        self._network, self._bits = network, bits
        self._confidence, self._overhang = confidence, overhang
        # frames that are not used up, from number `_first` on; those before the beginning have negative numbers
        lead = _OVERHANG // self.hop * self.hop if overhang else 0
        self._first = self._next = -lead
        self._frames = np.zeros((lead, made_by.n_values), np.float32)
        self._levels, self._known = np.zeros(lead, np.float32), np.zeros(lead, np.bool_)
        # what comes last before the end is not known, and where the end is, is not known before it
        self._held_back = EDGE_FRAMES if overhang else 0

    @property
    def due(self) -> int:  # noqa: D102
        return self._next + WINDOW_FRAMES + self._held_back

    @property
    def none(self) -> Rows:  # noqa: D102
        return self._rows(
            np.empty((0, self._bits), np.float32), np.empty(0, np.bool_), np.empty(0, np.float32)
        )

    def push(self, frames: Float32, levels: Float32) -> Rows:
        """Take frames (n, values) and their levels (n,); return the rows that are complete with them."""
        known = np.ones(len(frames), np.bool_)
        if self._overhang:
            known[: max(0, EDGE_FRAMES - self._end)] = False
        self._append(frames, levels, known)
        return self._cut()

    def finish(self) -> Rows:
        """Return the rows of the windows that overhang the end."""
        if not self._overhang or self._end < WINDOW_FRAMES:
            return self.none
        self._known[-EDGE_FRAMES:] = False
        self._held_back = 0
        nothing = np.zeros((_OVERHANG, self._frames.shape[1]), np.float32)
        self._append(nothing, np.zeros(_OVERHANG, np.float32), np.zeros(_OVERHANG, np.bool_))
        return self._cut()

    @property
    def _end(self) -> int:
        return self._first + len(self._frames)

    def _append(self, frames: Float32, levels: Float32, known: NDArray[np.bool_]) -> None:
        self._frames = np.concatenate([self._frames, frames])
        self._levels = np.concatenate([self._levels, levels])
        self._known = np.concatenate([self._known, known])

    def _cut(self) -> Rows:
        """Hash the windows that are complete, and drop the frames that no later one has."""
        count = max(0, (self._end - self.due) // self.hop + 1)
        if not count:
            return self.none
        starts = self._next - self._first + self.hop * np.arange(count)
        at = starts[:, None] + np.arange(WINDOW_FRAMES)
        windows, levels, known = self._frames[at], self._levels[at], self._known[at]
        if not known.all():
            windows = fill_missing(windows, known)
        windows, spread = self._normalise(windows)
        share = known.mean(axis=1, dtype=np.float32)
        level = np.einsum("nf,nf->n", levels, known.astype(np.float32)) / np.maximum(
            share * WINDOW_FRAMES, 1.0
        )
        valid = (level >= SILENCE_LEVEL) & (spread >= FLAT_SPREAD)
        rows = self._rows(self._network(windows.reshape(count, -1, self._network.n_inputs)), valid, share)
        self._next += count * self.hop
        used = min(self._next - self._first, len(self._frames))
        self._frames, self._levels, self._known = self._frames[used:], self._levels[used:], self._known[used:]
        self._first += used
        return rows

    def _rows(self, activations: Float32, valid: NDArray[np.bool_], share: Float32) -> Rows:
        words = np.packbits(activations > 0, axis=1, bitorder="little").view("<u8").astype(np.uint64)
        return Rows(
            start_s=self._next / FRAMES_PER_SECOND,
            hashes=mark_rows(words, valid),
            valid=valid,
            confidence=confidence_of(activations) if self._confidence else None,
            known=share if self._overhang else None,
        )
