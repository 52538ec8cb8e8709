"""Rendered frames -> batches of twins: the same second of audio twice, once clean and once distorted.

Nine hours of recordings soon repeat themselves. Four things, all on frames and so nearly free, keep a batch hard
and its seconds new:

- *neighbours*: some seconds come with one of another file whose code is among the most alike, the kind that a search
  would mistake for it (hard negatives);
- *variety*: both twins are stretched, mirrored in time or shifted over the bands alike, which makes them other music;
- *overlay*: the distorted twin gets another noise or another recording on top, and another colour;
- *overhang*: of the distorted twin only a part is known, as of a query's windows that overhang its ends.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from samaf.features import FRAMES_PER_SECOND, FRONT_ENDS, WINDOW_FRAMES, fill_missing
from samaf.model.corpus import Corpus, frames_at

PLACE_FRAMES = FRAMES_PER_SECOND // 2
"""Grid of the seconds that neighbours are looked for among; the seconds drawn lie up to half of it beside."""
NEIGHBOURS = 16
"""Neighbours known of each second; one of them is drawn."""
SAME = 0.14
"""Bit error rate under which a neighbour is taken for the same sound: a loop that two pieces share."""

STRETCHED, MIRRORED, SHIFTED = 0.4, 0.2, 0.4
"""Shares of the varied twins to which each of this happens."""
MOST_STRETCHED = 0.3
"""Natural logarithm of the largest factor of time."""
MOST_SHIFTED = 7
"""Bands."""
OVERLAY_DB = (-8.0, 15.0)
"""Power of a twin over that of what is laid over it."""
KNOWN_FRAMES = (25, 97)
"""Frames that are known of a twin that overhangs."""

MOST_COMPARED = 60_000
"""Seconds among which neighbours are looked for, spread evenly over a larger corpus: each is compared with each."""

_ROWS_AT_ONCE = 512

Float32 = NDArray[np.float32]
Encode = Callable[[Float32], NDArray[np.bool_]]


class Twins:
    """Draws twins from some chunks of a corpus.

    Parameters
    ----------
    corpus
        Rendered frames.
    chunks : (n,)
        The chunks to draw from.
    plain
        Leave out neighbours, variety, overlay and overhang: twins as they were rendered, to measure with.
    """

    def __init__(self, corpus: Corpus, chunks: NDArray[np.int64], *, plain: bool = False) -> None:
        self.corpus, self.preset, self.plain = corpus, corpus.preset, plain
        self.places = np.array(
            [(chunk, start) for chunk in chunks for start in corpus.starts[chunk][::PLACE_FRAMES]], np.int64
        )
        self._compared = np.arange(0, len(self.places), 1 + (len(self.places) - 1) // MOST_COMPARED)
        self.neighbours: NDArray[np.int64] | None = None
        """Places (those compared, :data:`NEIGHBOURS`), -1 where there are fewer."""

    def find_neighbours(self, encode: Encode) -> NDArray[np.int64]:
        """Look for each second's neighbours, as the network sees them now; they are drawn from here on.

        Parameters
        ----------
        encode
            Windows (n, steps, inputs) to bits (n, b).
        """
        compared, bits = self.places[self._compared], []
        for at in range(0, len(compared), _ROWS_AT_ONCE):
            cut = [self._clean(chunk, start) for chunk, start in compared[at : at + _ROWS_AT_ONCE]]
            bits.append(encode(self._windows(np.stack(cut))))
        found = nearest(np.concatenate(bits), self.corpus.files[compared[:, 0]])
        self.neighbours = np.where(found < 0, -1, self._compared[found])
        return self.neighbours

    def draw(self, pairs: int, rng: Generator) -> tuple[Float32, Float32]:
        """A batch of twins.

        Returns
        -------
        windows : float32 (2 pairs, steps, inputs)
            Clean windows, then the same seconds of distorted renderings (of the clean one where there are none).
        clean : float32 (2 pairs, steps, inputs)
            What the decoder shall give back for each.
        """
        preset, frames = self.preset, self.corpus.frames
        cut = np.empty((2 * pairs, WINDOW_FRAMES, frames.shape[-1]), np.float32)
        known = np.ones((2 * pairs, WINDOW_FRAMES), np.bool_)
        jitter = round(preset.jitter_s * FRAMES_PER_SECOND)
        for i, place in enumerate(self._drawn_places(pairs, rng)):
            chunk, start = self.places[place]
            starts = self.corpus.starts[chunk]
            beside = int(rng.integers(-PLACE_FRAMES // 2, PLACE_FRAMES // 2 + 1))
            start = int(np.clip(start + beside, starts[0], starts[-1]))
            k = int(rng.integers(1, frames.shape[1])) if frames.shape[1] > 1 else 0
            middle = start + WINDOW_FRAMES / 2 + int(rng.integers(-jitter, jitter + 1))
            twin = round(middle / float(self.corpus.factors[chunk, k]) - WINDOW_FRAMES / 2)
            if not self.plain and rng.random() < preset.variety:
                cut[i], cut[pairs + i] = varied(frames[chunk, 0], start, frames[chunk, k], twin, rng)
            else:
                cut[i], cut[pairs + i] = self._clean(chunk, start), window(frames[chunk, k], twin)
            if not self.plain and rng.random() < preset.overlay:
                cut[pairs + i] = overlaid(cut[pairs + i], self._something(rng), rng)
            if not self.plain and rng.random() < preset.overhang:
                n = int(rng.integers(KNOWN_FRAMES[0], KNOWN_FRAMES[1] + 1))
                known[pairs + i, n:] = False
                if rng.random() < 0.5:
                    known[pairs + i] = known[pairs + i, ::-1]
        windows = self._windows(fill_missing(cut, known))
        return windows, np.concatenate([windows[:pairs], windows[:pairs]])

    def _drawn_places(self, pairs: int, rng: Generator) -> NDArray[np.int64]:
        """Places at random, those at the end neighbours of those at the beginning."""
        if self.neighbours is None or self.plain:
            return rng.integers(len(self.places), size=pairs)
        n = round(pairs * self.preset.neighbours / 2)
        others = rng.integers(len(self.places), size=pairs - n)
        of = rng.integers(len(self._compared), size=n)
        found = self.neighbours[of, rng.integers(NEIGHBOURS, size=n)]
        others[:n] = self._compared[of]
        return np.concatenate([others, np.where(found < 0, rng.integers(len(self.places), size=n), found)])

    def _clean(self, chunk: int, start: int) -> Float32:
        return window(self.corpus.frames[chunk, 0], start)

    def _something(self, rng: Generator) -> Float32:
        """A second of recorded noise, of another rendering, or of noise made here."""
        kind, noise, frames = rng.random(), self.corpus.noise, self.corpus.frames
        if kind < 0.6 and len(noise) >= WINDOW_FRAMES:
            return window(noise, int(rng.integers(len(noise) - WINDOW_FRAMES + 1)))
        if kind < 0.9:
            chunk = int(self.places[rng.integers(len(self.places)), 0])
            last = max(1, int(self.corpus.n_frames[chunk]) - WINDOW_FRAMES)
            return window(frames[chunk, rng.integers(frames.shape[1])], int(rng.integers(last)))
        bands = frames.shape[-1]
        slope = np.linspace(0.0, rng.uniform(-1.0, 2.5), bands)
        power = rng.exponential(size=(WINDOW_FRAMES, bands)) + 1e-9
        return (slope + 0.6 * np.log(power)).astype(np.float32)

    def _windows(self, cut: Float32) -> Float32:
        """Normalised windows (n, steps, inputs) of frames (n, 100, values)."""
        normalised, _ = FRONT_ENDS[self.preset.front_end][1](cut)
        return normalised.reshape(len(cut), self.preset.n_steps, self.preset.n_inputs)


def window(frames: NDArray, start: int) -> Float32:
    """100 frames from `start` on; the first and last frame are repeated beyond the ends."""
    if 0 <= start <= len(frames) - WINDOW_FRAMES:
        return frames[start : start + WINDOW_FRAMES].astype(np.float32)
    return frames[np.clip(start + np.arange(WINDOW_FRAMES), 0, len(frames) - 1)].astype(np.float32)


def varied(
    clean: NDArray, start: int, distorted: NDArray, twin: int, rng: Generator
) -> tuple[Float32, Float32]:
    """Windows of two renderings at their places, changed alike: stretched, mirrored, shifted, as it is drawn."""
    rate = float(np.exp(rng.uniform(-MOST_STRETCHED, MOST_STRETCHED))) if rng.random() < STRETCHED else 1.0
    a, b = _stretched(clean, start, rate), _stretched(distorted, twin, rate)
    if rng.random() < MIRRORED:
        a, b = a[::-1], b[::-1]
    if rng.random() < SHIFTED:
        bands = a.shape[1]
        # what lies past the outermost bands is mirrored there
        from_ = np.abs(np.arange(bands) + int(rng.integers(-MOST_SHIFTED, MOST_SHIFTED + 1)))
        from_ = np.where(from_ >= bands, 2 * (bands - 1) - from_, from_)
        a, b = a[:, from_], b[:, from_]
    return a, b


def _stretched(frames: NDArray, start: int, rate: float) -> Float32:
    """100 frames about the middle of the window at `start`, `rate` frames apart."""
    if rate == 1.0:
        return window(frames, start)
    middle = (WINDOW_FRAMES - 1) / 2
    at = start + middle + (np.arange(WINDOW_FRAMES) - middle) * rate
    return frames_at(frames, np.clip(at, 0, len(frames) - 1))


def overlaid(twin: Float32, other: Float32, rng: Generator) -> Float32:
    """Log-mel frames of two sounds at once, at a level that is drawn, through a colour that is drawn.

    Powers are added: the sounds have nothing to do with each other.
    """
    bands = twin.shape[1]
    level = np.log(np.mean(np.exp(twin))) - np.log(np.mean(np.exp(other)))
    both = np.logaddexp(twin, other + np.float32(level - rng.uniform(*OVERLAY_DB) * np.log(10.0) / 10.0))
    if rng.random() < 0.5:
        return both
    knots = np.interp(np.arange(bands), np.linspace(0, bands - 1, 8), rng.uniform(-1.2, 1.2, 8))
    return both + (knots + rng.uniform(-1.0, 1.0) * np.linspace(-1.0, 1.0, bands)).astype(np.float32)


def nearest(bits: NDArray[np.bool_], files: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row of bits the :data:`NEIGHBOURS` most alike of other files, -1 where there are fewer.

    Rows that are all but equal (:data:`SAME`) are passed over.
    """
    signs = np.where(bits, np.float32(1), np.float32(-1))
    found = np.full((len(bits), NEIGHBOURS), -1, np.int64)
    k = min(NEIGHBOURS, len(bits))
    for at in range(0, len(bits), _ROWS_AT_ONCE):
        rows = slice(at, at + _ROWS_AT_ONCE)
        ber = 0.5 - 0.5 * (signs[rows] @ signs.T) / bits.shape[1]
        ber[(files[rows, None] == files) | (ber < SAME)] = 1.0
        best = np.argpartition(ber, k - 1, axis=1)[:, :k]
        found[rows, :k] = np.where(np.take_along_axis(ber, best, axis=1) < 1.0, best, -1)
    return found
