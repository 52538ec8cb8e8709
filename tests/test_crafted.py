"""Crafted fingerprints, exported indexes and weights at the command line: what is said, how it ends, what stays."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import crafted
import numpy as np
import pytest
from fuzzing import Child
from prints import MODEL, fill, new_index
from synth import tune, write

from samaf import Encoder, Library
from samaf.errors import FingerprintError, StoreError
from samaf.fingerprint import Fingerprint
from samaf.index import Index, TrackInfo, tracks, transfer
from samaf.index.tracks import Track
from samaf.weights import DEFAULT_PATH, Weights


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child() as child:
        yield child


def refused(child: Child, *args: object, why: str, unchanged: Path | None = None) -> None:
    """Run what must end with status 2 and one line, and leave a file as it is."""
    before = unchanged and unchanged.read_bytes()
    ended = child.run(*args)
    assert ended.faults == [] and ended.status == 2
    assert len(ended.err.splitlines()) == 1 and re.search(why, ended.err), ended.err
    assert (unchanged and unchanged.read_bytes()) == before


# -- fingerprints ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    with Library(folder / "db.samafdb", writable=True) as library:
        library.add([write(folder / "0.wav", tune(8, 0))])
    return folder / "db.samafdb"


@pytest.fixture(scope="module")
def query(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("query") / "query.samaf"
    Encoder().encode_query(tune(8, 0)[30_000:80_000]).save(path)
    return path


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"hop_s": 1e-12}, "a hop of 1e-12 s: must be a multiple of 0.01 s"),
        ({"hop_s": 5e-324}, "a hop of 4.94066e-324 s"),
        ({"hop_s": 1e300}, r"hop_s is 1e\+300, no number from 0 to 10"),
        ({"hop_s": float("nan")}, "NaN is no number of JSON"),
        ({"hop_s": True}, "hop_s is True"),
        ({"hop_s": 0.01}, r"36 windows from -0.7 s on, one every 0.01 s, do not cover a recording of"),
        ({"duration_s": 10**400}, "duration_s is 1000"),
        ({"duration_s": 1e9}, "duration_s is 1000000000.0"),
        ({"duration_s": 90.0}, "do not cover a recording of 90 s"),
        ({"start_s": 0.5}, "start_s is 0.5"),
        ({"start_s": "@infinite@"}, "1e999 is no number of JSON"),
        ({"model_id": 5}, "model_id is 5, no text"),
        ({"model_id": "\ud800"}, "model_id is"),
        ({"bits": 1 << 40}, f"bits is {1 << 40}, no whole number from 64 to 1024"),
        ({"bits": 128.0}, "bits is 128.0"),
        ({"n_hashes": 10**18}, "n_hashes is 1000"),
        ({"n_hashes": -1}, "n_hashes is -1"),
        ({"confidence": 1}, "confidence is neither true nor false"),
        ({"more": "@deep@"}, "more than a fingerprint has"),
        ({"more": [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}, "nested too deeply"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_fingerprints(
    child: Child, db: Path, query: Path, tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    path = tmp_path / "x.samaf"
    path.write_bytes(crafted.fingerprint(query.read_bytes(), lambda header: header | change))
    why = rf"x\.samaf: is damaged or cut off \(.*{why}.*\); make it again with `samaf encode`$"
    refused(child, "search", "--db", db, path, why=why, unchanged=db)
    ended = child.run("index", "add", "--db", db, path)
    assert ended.status == 2 and len(ended.complaints) == 1 and re.search(why, ended.complaints[0])


@pytest.mark.parametrize(("at", "value"), [(0, 0x7C00), (0, 0x7E00), (1, 0x8001), (1, 0xFC00)])
def test_confidence_that_is_no_confidence(query: Path, tmp_path: Path, at: int, value: int) -> None:
    print_ = Fingerprint.load(query)
    data = query.read_bytes()
    start = len(data) - 4 - 4 * len(print_) - 2 * 128 * len(print_) + 2 * at
    path = tmp_path / "x.samaf"
    path.write_bytes(crafted.sealed(data[:start] + value.to_bytes(2, "little") + data[start + 2 : -4]))
    with pytest.raises(FingerprintError, match=r"damaged or cut off \(confidence must be from 0 to 65504"):
        Fingerprint.load(path)


def test_a_flag_that_is_no_flag(tmp_path: Path) -> None:
    _print().save(tmp_path / "x.samaf")
    data = (tmp_path / "x.samaf").read_bytes()
    (tmp_path / "x.samaf").write_bytes(crafted.sealed(data[:-5] + b"\7"))
    with pytest.raises(FingerprintError, match="valid is neither 0 nor 1"):
        Fingerprint.load(tmp_path / "x.samaf")


def test_a_huge_fingerprint_takes_no_memory(child: Child, db: Path, query: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.samaf"
    path.write_bytes(crafted.fingerprint(query.read_bytes(), lambda header: header | {"n_hashes": 1 << 35}))
    os.truncate(path, 1 << 40)  # a hole
    refused(child, "search", "--db", db, path, why=r"x\.samaf: is damaged .*more than a fingerprint has")


def test_a_fingerprint_too_large_to_be_read_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samaf.fingerprint._MOST_FILE_BYTES", 1000)
    hashes = np.ones((100, 2), np.uint64)
    print_ = Fingerprint(hashes, np.ones(100, bool), 1.0, 128, MODEL, 100.0)
    with pytest.raises(FingerprintError, match=r"x\.samaf: would have .* MB, more than .*in parts"):
        print_.save(tmp_path / "x.samaf")
    with pytest.raises(ValueError, match="do not cover"):
        replace(print_, duration_s=500.0).save(tmp_path / "x.samaf")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "args", [["search", "--db", "DB", "PIPE"], ["index", "import", "--db", "DB", "PIPE"]]
)
def test_nobody_waits_for_a_pipe(child: Child, db: Path, tmp_path: Path, args: list[str]) -> None:
    pipe = tmp_path / "x.samaf"
    os.mkfifo(pipe)
    names = {"DB": db, "PIPE": pipe}
    refused(child, *(names.get(arg, arg) for arg in args), why=r"x\.samaf:? cannot be read.*no regular file")


def test_a_model_is_no_pipe(child: Child, db: Path, query: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.npz")
    refused(
        child, "search", "--model", tmp_path / "m.npz", "--db", db, query, why=r"m\.npz: not a weights file"
    )


# -- exported indexes --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("exported")
    with new_index(folder / "all.samafdb") as index:
        fill(index, range(5))
        index.add_alias(5, "/other.wav", 1, 2)
        index.export_to(folder / "all.samafidx")
    return (folder / "all.samafidx").read_bytes()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    with new_index(tmp_path / "db.samafdb") as index:
        fill(index, range(10, 12))
    return tmp_path / "db.samafdb"


TRACK_ID, PATH, TITLE, DURATION, N_HASHES, DIGEST, SIZE, MTIME, ADDED, ALIASES, TAGS = range(11)


def with_field(place: int, value: Any) -> Callable[[list[Any]], list[Any]]:
    """Change one field of the last record, which has them all."""

    def changed(records: list[Any]) -> list[Any]:
        records[-1][place] = value
        return records

    return changed


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (TITLE, 5, "title is 5, no text of up to 4096 characters"),
        (TITLE, "x" * 5000, "title is 'xxx"),
        (TAGS, [1], r"tags are \[1\], no JSON object"),
        (TAGS, {"artist": "@infinite@"}, "1e999 is no number of JSON"),
        (TAGS, {"artist": float("nan")}, "NaN is no number of JSON"),
        (TAGS, "@deep@", "nested too deeply"),
        (TAGS, {"a": [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}, "nested too deeply"),
        (DURATION, 1e308, r"duration_s is 1e\+308"),
        (DURATION, -1.0, "duration_s is -1.0"),
        (DURATION, float("nan"), "NaN is no number of JSON"),
        (DURATION, 10**400, "duration_s is 1000"),
        (DURATION, "30", "duration_s is '30'"),
        (PATH, "/" + "x" * 10_000_000, "path is '/xxx"),
        (PATH, "/a\0b", r"path is '/a\\x00b', which holds what is no character"),
        (PATH, "/\ud800", r"path is '/\\ud800', which holds"),
        (PATH, 7, "path is 7"),
        (N_HASHES, -1, "n_hashes is -1"),
        (N_HASHES, "1", "n_hashes is '1'"),
        (N_HASHES, None, "n_hashes is None"),
        (N_HASHES, 1 << 40, "n_hashes is 1099511627776"),
        (N_HASHES, 49, "its size does not fit its tracks"),
        (DIGEST, 5, "digest is 5"),
        (DIGEST, "\ud800", "digest is"),
        (SIZE, -1, "size_bytes is -1"),
        (MTIME, 0.5, "mtime_ns is 0.5"),
        (ADDED, "now", "added is 'now'"),
        (ALIASES, 5, "of other kinds"),
        (ALIASES, [["/a", 1]], "record of track 5 cannot be right"),
        (ALIASES, [["/a", None, 1]], "size_bytes is None"),
        (TRACK_ID, 1 << 32, "its number is 4294967296"),
        (TRACK_ID, 1, "its tracks are out of order"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_exported_records(
    child: Child, exported: bytes, target: Path, tmp_path: Path, place: int, value: Any, why: str
) -> None:
    path = tmp_path / "x.samafidx"

    def records(found: list[Any]) -> list[Any]:
        found[-1] = [*found[-1], [], {}][:11]
        return with_field(place, value)(found)

    path.write_bytes(crafted.exported(exported, records=records))
    why = rf"x\.samafidx is damaged \(.*{why}.*\); export it anew$"
    refused(child, "index", "import", "--db", target, path, why=why, unchanged=target)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (lambda header: [], "is no JSON object"),
        (lambda header: header | {"bits": "128"}, "bits is '128'"),
        (lambda header: header | {"bits": 100}, "bits are 100"),
        (lambda header: header | {"hop_s": 1e-12}, "a hop of 1e-12 s"),
        (lambda header: header | {"model_id": None}, "model_id is None"),
        (lambda header: header | {"more": 1}, "more fields than a header"),
        (lambda header: "@deep@", "it is cut short"),
        (lambda header: {}, "format_version is missing"),
    ],
)
def test_exported_headers(
    child: Child, exported: bytes, target: Path, tmp_path: Path, header: Callable[[Any], Any], why: str
) -> None:
    path = tmp_path / "x.samafidx"
    path.write_bytes(crafted.exported(exported, header=header))
    why = rf"x\.samafidx is damaged \(.*{why}.*\); export it anew$"
    refused(child, "index", "import", "--db", target, path, why=why, unchanged=target)


@pytest.mark.parametrize("text", [b"\0", b"[],", b'[1,"/a",null,0,0,"",0,0,0],'])
def test_a_bomb_does_not_go_off(
    child: Child, exported: bytes, target: Path, tmp_path: Path, text: bytes
) -> None:
    path = tmp_path / "x.samafidx"
    path.write_bytes(crafted.exported(exported, deflated=crafted.bomb(text, 1_850_000_000)))
    why = r"x\.samafidx is damaged \(.*more than \d+ bytes\); export it anew"
    refused(child, "index", "import", "--db", target, path, why=why, unchanged=target)


def test_what_could_not_be_imported_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_most_inflated", lambda size: size)
    with new_index(tmp_path / "db.samafdb") as index:
        fill(index, range(1))
        index.add([(TrackInfo("/a", tags={"text": "x" * 10_000}), _print())])
        with pytest.raises(StoreError, match="too much text in its tags"):
            index.export_to(tmp_path / "x.samafidx")
    assert not (tmp_path / "x.samafidx").exists()


def _print() -> Fingerprint:
    return Fingerprint(np.ones((1, 2), np.uint64), np.ones(1, bool), 1.0, 128, MODEL, 1.0)


@pytest.mark.parametrize(
    "info",
    [
        TrackInfo("/" + "x" * 5000),
        TrackInfo("/a", title="x" * 5000),
        TrackInfo("/a", tags={"x": float("inf")}),
        TrackInfo("/a", digest="\ud800"),
        TrackInfo("/a", size_bytes=-1),
    ],
    ids=lambda info: str(info)[:40],
)
def test_what_could_not_be_read_is_not_stored(tmp_path: Path, info: TrackInfo) -> None:
    with new_index(tmp_path / "db.samafdb") as index:
        fill(index, range(2))
        with pytest.raises(ValueError, match=r"(path|title|digest|size_bytes) is|no value of JSON"):
            index.add([(info, _print())])
        assert index.stats().n_tracks == 2 and index.verify().ok


def test_a_damaged_track_is_named_and_the_others_are_listed(
    child: Child, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older samaf imported what is refused now."""
    with monkeypatch.context() as patch, Index.open(target, readonly=False) as index:
        patch.setattr(Track, "_check", lambda track: None)
        for name, change in {"/t": {"title": 5}, "/d": {"duration_s": 1e308}, "/g": {"tags": [1]}}.items():
            (number,) = index.add([(TrackInfo(name), _print())])
            with index._changing() as (_, making):
                tracks.put(making.txn, number, replace(index.track(number), **change))
    for options in ([], ["--json"]):
        ended = child.run("index", "list", *options, "--db", target)
        assert ended.faults == [] and ended.status == 2
        assert "10.flac" in ended.out and "11.flac" in ended.out
        assert len(ended.complaints) == 3
        for complaint, why in zip(
            ended.complaints,
            ["track 3 .*title is 5", "track 4 .*duration_s is 1e.308", "track 5 .*tags are"],
            strict=True,
        ):
            assert re.search(rf"db\.samafdb is damaged \(the record of {why}.*verify --repair", complaint)
    with Index.open(target) as index:
        with pytest.raises(StoreError, match="track 3 cannot be right"):
            list(index.tracks())
        assert [problem[:21] for problem in index.verify().problems[:3]] == [
            f"the record of track {number}"[:21] for number in (3, 4, 5)
        ]
    ended = child.run("index", "verify", "--repair", tmp_path / "new.samafdb", "--db", target)
    assert ended.faults == [] and ended.status == 2 and len(ended.complaints) == 3
    ended = child.run("index", "list", "--json", "--db", tmp_path / "new.samafdb")
    assert ended.status == 0 and len(ended.out.splitlines()) == 2


# -- weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (
            {"head": lambda header: header | {"front_end": ["log-mel"]}},
            r"front_end is \['log-mel'\], no text",
        ),
        ({"head": lambda header: header | {"stack": 0}}, "stack is 0, no whole number from 1"),
        ({"head": lambda header: header | {"bits": [256, 128]}}, "bits are no ascending multiples of 64"),
        ({"head": lambda header: header | {"bits": [128.0]}}, "bits is 128.0"),
        ({"head": lambda header: header | {"bits": 128}}, "bits are no list"),
        ({"head": lambda header: header | {"facts": "@deep@"}}, "header has more than 65536 bytes"),
        ({"head": lambda header: header | {"facts": 5}}, "5 is no JSON object"),
        ({"head": lambda header: [header]}, "is no JSON object"),
        ({"kernel": np.array(1.0, np.float16)}, r"kernel has shape \(\)"),
        ({"recurrent": np.zeros((0, 0), np.float16)}, r"recurrent has shape \(0, 0\)"),
        ({"kernel": None}, "kernel is missing"),
        ({"dense": np.full((384, 256), np.nan, np.float16)}, "dense holds NaN"),
        ({"bias": np.array([{}] * 3)}, "bias is no array of numbers"),
        ({"bias": np.zeros(1536, np.float32)}, "bias has type <f4"),
        (
            {"kernel": bytes(64 << 20), "compression": zipfile.ZIP_DEFLATED},
            "more than 64 arrays, or 33554432 bytes",
        ),
        ({"compression": zipfile.ZIP_LZMA}, "compressed in a way that numpy does not know"),
        ({f"x{k}": b"" for k in range(100)}, "more than 64 arrays"),
    ],
    ids=lambda value: str(value).partition("<")[0][:40],
)
def test_weights(child: Child, db: Path, query: Path, tmp_path: Path, made: dict[str, Any], why: str) -> None:
    path = tmp_path / "m.npz"
    path.write_bytes(crafted.weights(DEFAULT_PATH, **made))
    why = rf"m\.npz: not a weights file, or damaged \(.*{why}.*\); give a file written by `samaf train` or"
    refused(child, "search", "--model", path, "--db", db, query, why=why, unchanged=db)


def test_a_huge_weights_file_is_not_read(child: Child, tmp_path: Path) -> None:
    path = Path(shutil.copy(DEFAULT_PATH, tmp_path / "m.npz"))
    os.truncate(path, 1 << 40)
    refused(child, "encode", "--model", path, "x.wav", why=r"m\.npz: not a weights file.*it has \d+ bytes")


CALIBRATION = Weights.load().calibration


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("tail_128", None, "tail_128 is missing"),
        ("tail_128", np.zeros_like(CALIBRATION["tail_128"]), "the tail's rate does not stay above 0"),
        ("tail_seconds", np.ones(7), "tail_seconds does not stay above 0"),
        ("tail_seconds", np.full(7, np.nan), "tail_seconds is no array of numbers"),
        ("share", np.array(0.0), "share does not stay above 0"),
        ("share", np.ones(2), r"share is no array of numbers of shape \(\)"),
        ("hops", np.array([1e300, 1.0]), "hops is no array of numbers"),
        ("hops", np.array("text"), "calibration_hops is no array of numbers"),
        ("kinds_128", np.ones((2, 4)), "kinds"),
        ("odds_128", np.full((2, 4), np.inf), "odds_128 is no array of numbers"),
        ("reliability", np.array([0.0, 1.0, -1.0]), "a power that is not from 0 to 100"),
        ("background", CALIBRATION["background"].astype(np.float64), "background has type float64"),
        (
            "background",
            CALIBRATION["background"][..., :1],
            r"background has type uint64 and shape \(640, 47, 1\)",
        ),
        ("background", np.ones((200_000, 1, 4), np.uint64), r"background has shape \(200000, 1, 4\)"),
    ],
    ids=lambda value: str(value)[:30] if not isinstance(value, np.ndarray) else "",
)
def test_calibrations(
    child: Child, db: Path, query: Path, tmp_path: Path, name: str, value: np.ndarray | None, why: str
) -> None:
    path = tmp_path / "m.npz"
    path.write_bytes(crafted.weights(DEFAULT_PATH, **{f"calibration_{name}": value}))
    why = rf"m\.npz: .*{why}.*; (write it again with `samaf calibrate`|give a file written by)"
    refused(child, "search", "--model", path, "--db", db, query, why=why, unchanged=db)


def test_no_weights_make_confidence_infinite(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    path.write_bytes(
        crafted.weights(
            DEFAULT_PATH,
            clarity=np.full(385, 1e5, np.float32),
            dense=np.full((384, 256), 65504, np.float16),
        )
    )
    print_ = Encoder(path).encode_query(tune(3))
    assert print_.confidence is not None and np.isfinite(print_.confidence).all()
