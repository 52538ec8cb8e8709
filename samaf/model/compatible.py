"""How much a quantised model loses in an index of the original.

Their hashes differ in a few bits, so that one may well search an index of the other, and add to it, if it passes for
the other. Whether it may is measured: clips of recordings that neither was trained on are distorted, and searched for
with the hashes of both in an index of the original's. The codes are the model's shortest, which have the most to lose.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samaf.audio import read_audio
from samaf.encoder import Encoder, load_weights
from samaf.errors import AudioError, ModelError
from samaf.fingerprint import Fingerprint
from samaf.hamming import distance
from samaf.index import Index, TrackInfo
from samaf.model.augment import Sources, distort
from samaf.search import Searcher
from samaf.settings import QUERY_HOP_S, REFERENCE_HOP_S, processors
from samaf.verdict import CalibratedModel, Limits

CLIPS = 2000
"""Where one clip in a hundred changes sides, the standard error of the loss is 0.2 points."""
LENGTHS_S = (2.0, 5.0)
MOST_LOST = 0.5
"""Points of clips whose best candidate is right that a compatible model may lose, with one standard error."""


@dataclass(frozen=True)
class Loss:
    """What a model loses against the original in its index.

    Attributes
    ----------
    clips
        Searched for with both.
    right, right_of_original
        Of them the best candidate was right.
    points
        Of a hundred clips so many fewer are right.
    standard_error
        Of the points, from the clips on which the two differ, and one more: a few clips that agree prove little.
    ber
        Share of bits in which their hashes of the clips differ.
    """

    clips: int
    right: int
    right_of_original: int
    points: float
    standard_error: float
    ber: float

    @property
    def bearable(self) -> bool:
        """Whether it is surely under :data:`MOST_LOST`."""
        return self.points + self.standard_error < MOST_LOST

    def to_json(self) -> dict[str, Any]:
        """The values as JSON types."""
        return asdict(self)


def loss_of(
    model: Path,
    original: Path,
    calibration: Mapping[str, NDArray],
    held_out: Sequence[Path],
    library: Sequence[Path],
    *,
    sources: Sources | None = None,
    copies: Mapping[Path, Collection[Path]] | None = None,
    clips: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Loss:
    """What a model loses against the original in an index of the original.

    Parameters
    ----------
    model, original
        Weights files.
    calibration
        With it the answers of both are judged.
    held_out
        Recordings that neither was trained on: clips of them are searched for, all distorted.
    library
        Recordings to search among, besides `held_out`.
    sources, copies
        As of :func:`samaf.model.calibrate.calibration_of`.
    clips
        How many; default :data:`CLIPS`.
    progress
        Called with (steps done, steps, note).

    Raises
    ------
    ModelError
        If no recording is long enough to cut clips from.
    """
    copies, clips = copies or {}, clips or CLIPS
    strange = replace(
        sources or Sources(), voices=()
    )  # babble of recordings that are searched among would be found
    bits = load_weights(original).bits[0]
    encoders = [Encoder(path, bits=bits) for path in (original, model)]
    model_id = encoders[0].model_id
    wanted = [*held_out, *library]
    with (
        ThreadPoolExecutor(processors()) as pool,
        tempfile.TemporaryDirectory() as folder,
        Index.create(
            Path(folder) / "index",
            model_id=model_id,
            bits=bits,
            hop_s=REFERENCE_HOP_S,
            query_hop_s=QUERY_HOP_S,
        ) as index,
    ):
        prints: dict[Path, Fingerprint] = {}
        for path, print_ in zip(wanted, pool.map(lambda path: _read(encoders[0], path), wanted), strict=True):
            if print_ is not None:
                prints[path] = print_
        index.add([(TrackInfo(str(path)), print_) for path, print_ in prints.items()])
        searcher = Searcher(index, CalibratedModel(model_id, dict(calibration)))
        long = [
            path for path in held_out if path in prints and prints[path].duration_s > max(LENGTHS_S) + 0.1
        ]
        if not long:
            raise ModelError(
                f"no recording of {max(LENGTHS_S):g} s or more to measure the loss on; give longer held-out ones"
            )

        def tried(k: int) -> tuple[list[bool], float] | None:
            rng = np.random.default_rng([seed, 3, k])
            path, length_s = long[int(rng.integers(len(long)))], LENGTHS_S[k % len(LENGTHS_S)]
            start_s = float(rng.uniform(0.0, prints[path].duration_s - length_s))
            try:
                clean = read_audio(path, start_s=start_s, end_s=start_s + length_s)
                spoilt = distort(clean, 1.0, strange, rng)
                queries = [encoder.encode_query(spoilt) for encoder in encoders]
            except AudioError:
                return None
            own = {str(path), *map(str, copies.get(path, ()))}
            right = []
            for query in queries:
                found = searcher.search(
                    replace(query, model_id=model_id), limits=Limits(min_probability=0.0, top=1)
                )
                right.append(bool(found) and found[0].path in own)
            return right, float(distance(queries[0].hashes, queries[1].hashes).mean()) / bits

        outcomes: list[list[bool]] = []
        rates: list[float] = []
        for k, one in enumerate(pool.map(tried, range(clips))):
            progress(k + 1, clips, "")
            if one is not None:
                outcomes.append(one[0])
                rates.append(one[1])
    if not outcomes:
        raise ModelError("no clip of the held-out recordings can be read; give others")
    of_original, of_model = np.array(outcomes).T
    n, differ = len(outcomes), int((of_original != of_model).sum())
    return Loss(
        clips=n,
        right=int(of_model.sum()),
        right_of_original=int(of_original.sum()),
        points=100.0 * (int(of_original.sum()) - int(of_model.sum())) / n,
        standard_error=100.0 * (differ + 1) ** 0.5 / n,
        ber=float(np.mean(rates)),
    )


def _read(encoder: Encoder, path: Path) -> Fingerprint | None:
    try:
        return encoder.encode(path)
    except AudioError:
        return None
