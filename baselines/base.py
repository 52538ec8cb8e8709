"""The contract that every system of the bench fulfils: add tracks, name clips, save, load.

A system is told nothing but samples at its own :attr:`Baseline.sample_rate`, and answers a clip with its best
candidate, whether it would accept it or not: the bench compares systems at equal rates of false answers, for which
it needs the scores below a system's own threshold too. :attr:`Match.accepted` keeps the system's own verdict.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Tables = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Match:
    """A system's best answer to a clip.

    Attributes
    ----------
    track_id
        The track named.
    offset_s
        Seconds into the track at which the clip's first sample lies.
    score
        The system's own score; higher is better. Comparable within one system only.
    accepted
        Whether the system, by its published rule, would give this answer rather than "unknown".
    speed, tempo, pitch_cents
        What the system says was done to the clip: time and pitch together (1.05 plays faster), time alone, pitch alone.
    ber
        Bit error rate of the aligned fingerprints, for systems that have one.
    """

    track_id: str
    offset_s: float
    score: float
    accepted: bool = True
    speed: float = 1.0
    tempo: float = 1.0
    pitch_cents: float = 0.0
    ber: float | None = None


class Baseline(ABC):
    """A fingerprinting system with its own store.

    Subclasses set :attr:`name`, :attr:`sample_rate` and :attr:`Parameters`, and keep what they store in arrays that
    :meth:`tables` hands out and :meth:`restore` takes back; saving, loading and the size follow from these.

    Parameters
    ----------
    parameters
        The system's settings; by default the published ones.
    """

    name: ClassVar[str]
    """As given to ``bench run --baseline``."""
    sample_rate: ClassVar[int]
    """Samples per second, mono, that :meth:`add` and :meth:`query` expect."""
    Parameters: ClassVar[type]
    """Frozen dataclass of the system's settings; the source of each value stands in its docstring."""

    def __init__(self, parameters: Any = None) -> None:
        self.parameters = self.Parameters() if parameters is None else parameters
        self.tracks: list[str] = []

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        """What tells a system with these parameters from others, as JSON values."""
        return asdict(parameters)

    @property
    def macs_per_s(self) -> float:
        """Multiplications with addition that its network needs for a second of a track; nan where it has none."""
        return math.nan

    @classmethod  # noqa: B027 (most systems lack nothing)
    def check(cls, parameters: Any) -> None:
        """Refuse what the system cannot be made of now; a `SamafError` says what is missing and how to get it."""

    @abstractmethod
    def add(self, track_id: str, samples: Float32) -> None:
        """Fingerprint a track and store it under `track_id`."""

    def settle(self) -> None:  # noqa: B027 (systems that have nothing to do here need not say so)
        """Index what has been added, for what comes next to find it ready; it would be done then otherwise."""

    @abstractmethod
    def query(self, samples: Float32) -> Match | None:
        """The best candidate for a clip.

        None where nothing in the store has anything in common with the clip, or the clip is shorter than
        the system's own minimum.
        """

    @abstractmethod
    def tables(self) -> Tables:
        """All that is stored, as arrays in the smallest types that hold them."""

    @abstractmethod
    def restore(self, tables: Tables) -> None:
        """Take back what :meth:`tables` gave; :attr:`tracks` is set before."""

    def size_bytes(self) -> int:
        """Bytes that the store takes on disk: its arrays, and the names of its tracks."""
        return self._bytes_of(self.tables())

    def _bytes_of(self, tables: Tables) -> int:
        return sum(table.nbytes for table in tables.values()) + sum(
            len(track.encode()) + 1 for track in self.tracks
        )

    def save(self, folder: Path) -> int:
        """Write the store into `folder`, which is made where it is missing; returns its :meth:`size_bytes`."""
        folder.mkdir(parents=True, exist_ok=True)
        tables = self.tables()
        for name, table in tables.items():
            np.save(folder / f"{name}.npy", table)
        about = {"name": self.name, "parameters": asdict(self.parameters), "tracks": self.tracks}
        (folder / "system.json").write_text(json.dumps(about))
        return self._bytes_of(tables)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The system that :meth:`save` wrote.

        Raises
        ------
        ValueError
            If `folder` holds another system's store.
        """
        about = json.loads((folder / "system.json").read_text())
        if about["name"] != cls.name:
            raise ValueError(f"{folder}: a store of {about['name']}, not of {cls.name}")
        system = cls(cls.Parameters(**about["parameters"]))
        system.tracks = about["tracks"]
        system.restore({path.stem: np.load(path) for path in folder.glob("*.npy")})
        return system
