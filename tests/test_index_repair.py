"""What is left of a damaged index is saved, and what is lost is said."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from prints import fill, new_index, stored

from samaf.errors import LockedError, MismatchError, StoreError
from samaf.index import Index, Track
from samaf.index.repair import repair


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.db"
    with new_index(path) as index:
        for first in range(0, 40, 5):
            fill(index, range(first, first + 5))
        index.remove([3, 7])
        index.add_alias(5, "/alias")
    return path


def held(path: Path) -> tuple[dict[int, Track], dict[int, np.ndarray]]:
    with Index.open(path) as index:
        assert index.verify().ok
        return {track.track_id: track for track in index.tracks()}, stored(index)


def check(path: Path, whole: tuple[dict[int, Track], dict[int, np.ndarray]]) -> tuple[set[int], str]:
    """Repair, compare, and return which tracks are saved and what is said to be lost."""
    new = path.with_name("new.db")
    new.unlink(missing_ok=True)
    report = repair(path, new)
    tracks, hashes = held(new)
    assert tuple(sorted(tracks)) == report.saved
    for number, track in tracks.items():
        assert track == whole[0][number]
        assert (hashes[number] == whole[1][number]).all()
    return set(tracks), "\n".join(report.lost)


def test_of_a_whole_index_nothing_is_lost(path: Path) -> None:
    whole = held(path)
    assert check(path, whole) == (whole[0].keys(), "")
    with Index.open(path.with_name("new.db"), readonly=False) as index:
        assert index.find_path("/alias").track_id == 5  # type: ignore[union-attr]
        assert fill(index, range(90, 92)) == [41, 42], "ids are never used twice"
        assert index.verify().ok


def test_a_flipped_byte_costs_one_track(path: Path) -> None:
    whole = held(path)
    data = bytearray(path.read_bytes())
    data[data.index(bytes(whole[1][12][7:9])) + 3] ^= 8
    path.write_bytes(data)
    saved, lost = check(path, whole)
    assert saved == whole[0].keys() - {12}
    assert lost == f"track 12 ({whole[0][12].path}): its hashes are damaged"
    with (
        Index.open(path) as index,
        pytest.raises(StoreError, match=r"track 12 fail.*--repair"),
        index.snapshot(),
    ):
        pass


def test_of_a_cut_file_the_rest_is_saved(path: Path) -> None:
    whole = held(path)
    data = path.read_bytes()
    with Index.open(path) as index, index.snapshot() as snapshot:
        last = max(place.offset for _, place in snapshot.tree.places(b"s") if place.is_fixed)
    path.write_bytes(data[: last + 16 * 120])
    saved, lost = check(path, whole)
    assert 2 <= len(saved) < len(whole[0])
    assert lost


def test_damage_of_any_kind(path: Path) -> None:
    whole = held(path)
    data = path.read_bytes()
    rng = random.Random(4)
    n_saved = n_whole = 0
    for _ in range(40):
        damaged = bytearray(data)
        at = rng.randrange(2, len(data) // 4096) * 4096
        damaged[at : at + 4096] = rng.randbytes(4096)
        path.write_bytes(damaged)
        new = path.with_name("new.db")
        new.unlink(missing_ok=True)
        try:
            report = repair(path, new)
        except StoreError as error:
            assert "header" in str(error)
            continue
        tracks, hashes = held(new)
        stale = any("list of what is in use" in line for line in report.lost)
        for number in tracks:
            assert stale or number in whole[0]
            if number in whole[0]:
                assert (hashes[number] == whole[1][number]).all()
        assert report.lost or tracks == whole[0]
        n_whole += tracks == whole[0]
        n_saved += len(tracks)
    assert n_saved > 30 * len(whole[0])
    assert n_whole > 10


def test_what_cannot_be_repaired(path: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    with pytest.raises(StoreError, match="exists already"):
        repair(path, path)
    with pytest.raises(StoreError, match="cannot be read"):
        repair(tmp_path / "missing", new)
    with pytest.raises(StoreError, match="cannot be read"):
        repair(tmp_path, new)
    (tmp_path / "empty").touch()
    with pytest.raises(StoreError, match="is empty"):
        repair(tmp_path / "empty", new)
    (tmp_path / "text").write_text("no index\n" * 5000)
    with pytest.raises(StoreError, match="no index"):
        repair(tmp_path / "text", new)
    with Index.open(path, readonly=False), pytest.raises(LockedError):
        repair(path, new)
    assert not new.exists()


def test_an_index_of_another_format(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samaf.index.state.FORMAT_VERSION", 3)
    with pytest.raises(MismatchError):
        repair(path, tmp_path / "new.db")
