"""Fingerprints, exported indexes and weights files that somebody has tampered with, through the command line.

Each case is drawn from its own seed. A tenth of them runs every time; all of them have the marker `slow`.
"""

from __future__ import annotations

import os
import shutil
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import crafted
import numpy as np
import pytest
from crafted import flipped, hostile, sealed
from fuzzing import Child
from synth import tune, write
from test_cnn import random_cnn

from samaf import Encoder, Library
from samaf.weights import DEFAULT_PATH, Weights

FINGERPRINTS, EXPORTS, WEIGHTS = 100, 100, 120
BOMB_BYTES = 1_850_000_000

Rng = np.random.Generator
Case = Callable[[bytes, Rng], bytes]


@dataclass(frozen=True)
class Good:
    """Sound files, and an index that some of them fit."""

    folder: Path
    clip: Path
    prints: tuple[bytes, ...]
    exported: bytes

    @property
    def db(self) -> Path:
        return self.folder / "db.samafdb"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    folder = tmp_path_factory.mktemp("good")
    for seed in range(3):
        write(folder / f"{seed}.wav", tune(8, seed))
    clip = write(folder / "clip.wav", tune(8, 1)[30_000:80_000])
    encoder = Encoder()
    query, whole = folder / "query.samaf", folder / "whole.samaf"
    encoder.encode_query(clip).save(query)
    encoder.encode(tune(8, 5)).save(whole)
    good = Good(folder, clip, (query.read_bytes(), whole.read_bytes()), b"")
    with Library(good.db, writable=True) as library:
        library.add([folder / f"{seed}.wav" for seed in range(3)])
        library.index.add_alias(2, "/elsewhere/1.wav", 5, 6)
    with Library(folder / "other.samafdb", writable=True) as library:
        for seed in range(3, 7):
            library.add([write(folder / f"{seed}.wav", tune(3, seed))])
        library.index.export_to(folder / "all.samafidx")
    return Good(folder, clip, good.prints, (folder / "all.samafidx").read_bytes())


def cut(data: bytes, rng: Rng) -> bytes:
    return data[: rng.integers(len(data))]


def changed(value: Any, rng: Rng, n: int = 1) -> Any:
    """An object or list with hostile values in some places, or without them."""
    value = dict(value) if isinstance(value, dict) else list(value)
    places = list(value) if isinstance(value, dict) else list(range(len(value)))
    for place in rng.permutation(len(places))[:n]:
        value[places[place]] = hostile(rng)
    if isinstance(value, dict) and rng.random() < 0.1:
        del value[places[0]]
    return value


# -- fingerprints ------------------------------------------------------------------------------------------------------


def odd_arrays(data: bytes, rng: Rng) -> bytes:
    """The same numbers everywhere in one of the arrays' stretches."""
    body = bytearray(data[:-4])
    odd = [b"\0\x7c", b"\0\xfe", b"\1\x7c", b"\0\x80", b"\xff\xff", b"\0\0\xc0\x7f", b"\7", b"\0"]
    pattern = odd[rng.integers(len(odd))]
    start = int(rng.integers(200, len(body)))
    length = int(rng.integers(1, 400))
    body[start : start + length] = (pattern * 400)[: len(body[start : start + length])]
    return sealed(bytes(body))


def odd_file(data: bytes, rng: Rng) -> bytes:
    heads = [b"", b"SAMAFP", b"SAMAFP\1\0", b"SAMAFP\1\0\xff\xff\xff\xff", b"SAMAFP\0\0\2\0\0\0{}", data[:12]]
    heads += [data[:6] + struct.pack("<H", version) + data[8:] for version in (1, 2, 3, 65535)]
    return sealed(heads[rng.integers(len(heads))])


def odd_counts(data: bytes, rng: Rng) -> bytes:
    n = [0, 1, 2**20, 2**31, 2**40, 2**62, 10**18][rng.integers(7)]
    bits = [0, 1, 63, 64, 100, 256, 1024, 2**32, 2**40][rng.integers(9)]
    return crafted.fingerprint(data, lambda header: header | {"n_hashes": n, "bits": bits})


def crafted_fingerprint(good: Good, k: int) -> bytes:
    rng = np.random.default_rng([1, k])
    cases: list[Case] = [
        lambda data, rng: crafted.fingerprint(data, lambda header: changed(header, rng)),
        flipped,
        lambda data, rng: sealed(flipped(data[:-4], rng)),
        cut,
        odd_arrays,
        lambda data, rng: sealed(cut(data, rng)),
        lambda data, rng: crafted.fingerprint(data, lambda header: changed(header, rng, 2)),
        odd_counts,
        odd_file,
        lambda data, rng: crafted.fingerprint(data, lambda header: header | {"hop_s": hostile(rng)}),
        lambda data, rng: crafted.fingerprint(data, lambda header: hostile(rng)),
    ]
    return cases[k % len(cases)](good.prints[int(rng.integers(2))], rng)


def fuzz_fingerprints(good: Good, tmp_path: Path, step: int) -> list[str]:
    faults: list[str] = []
    db = Path(shutil.copy(good.db, tmp_path / "db.samafdb"))
    with Child() as child:
        for k in range(0, FINGERPRINTS, step):
            path = tmp_path / f"{k}.samaf"
            path.write_bytes(crafted_fingerprint(good, k))
            before = db.read_bytes()
            search = child.run("search", "--json", "--min-probability", 0, "--db", db, path)
            faults += search.faults
            if db.read_bytes() != before:
                faults.append(f"{path.name}: a search changed the index")
            add = child.run("index", "add", "--db", db, path)
            faults += add.faults
            if add.status == 2 and db.read_bytes() != before:
                faults.append(f"{path.name}: it was refused, but the index changed")
        huge = tmp_path / "huge.samaf"  # sparse
        huge.write_bytes(
            crafted.fingerprint(good.prints[1], lambda header: header | {"n_hashes": 2**31, "bits": 1024})
        )
        os.truncate(huge, 1 << 38)
        faults += child.run("search", "--db", db, huge).faults
        faults += whole(child, db)
    return faults


def whole(child: Child, db: Path) -> list[str]:
    """What is wrong with an index that is said to be whole."""
    ended = [child.run("index", "list", "--json", "--db", db), child.run("index", "verify", "--db", db)]
    return [fault for one in ended for fault in one.faults or ([one.err] if one.status else [])]


# -- exported indexes --------------------------------------------------------------------------------------------------


def odd_record(data: bytes, rng: Rng, n: int = 1) -> bytes:
    def records(listed: list[Any]) -> list[Any]:
        which = rng.integers(len(listed))
        listed[which] = changed([*listed[which], [], {}][:11], rng, n)
        return listed

    return crafted.exported(data, records=records)


def odd_rest(data: bytes, rng: Rng) -> bytes:
    """Aliases and tags."""
    odd = [
        [[["/a", 1, 2], hostile(rng)], {}],
        [[["/a", 1, 2]], {"artist": hostile(rng)}],
        [[[hostile(rng), 1, 2]], {}],
        [[["/a", hostile(rng), 2]], {}],
        [[], {"a": {"b": [hostile(rng)]}}],
        [hostile(rng), hostile(rng)],
    ]
    rest = odd[rng.integers(len(odd))]
    return crafted.exported(data, records=lambda listed: [[*listed[0][:9], *rest], *listed[1:]])


def odd_list(data: bytes, rng: Rng) -> bytes:
    odd: list[Callable[[list[Any]], Any]] = [
        lambda listed: [],
        lambda listed: {"a": listed},
        lambda listed: listed[::-1],
        lambda listed: [listed[0]] * len(listed),
        lambda listed: [*listed, []],
        lambda listed: [[*record[:4], record[4] + 1, *record[5:]] for record in listed],
        lambda listed: [[record[0], "/" + "x" * 10_000_000, *record[2:]] for record in listed],
        lambda listed: "@deep@",
        lambda listed: hostile(rng),
    ]
    return crafted.exported(data, records=odd[rng.integers(len(odd))])


def odd_bomb(data: bytes, rng: Rng) -> bytes:
    texts = [b"\0", b" ", b"[],", b"[", b"0,", b'[1,"/a",null,0,0,"",0,0,0],']
    return crafted.exported(data, deflated=crafted.bomb(texts[rng.integers(len(texts))], BOMB_BYTES))


def odd_length(data: bytes, rng: Rng) -> bytes:
    body = bytearray(data[:-4])
    length = [0, 1, 2**31, 2**32, 2**62, 2**64 - 1, len(body)][rng.integers(7)]
    body[12:20] = struct.pack("<Q", length)
    return sealed(bytes(body))


def crafted_export(good: Good, k: int) -> bytes:
    cases: list[Case] = [
        odd_record,
        flipped,
        odd_bomb,
        odd_rest,
        lambda data, rng: sealed(flipped(data[:-4], rng)),
        odd_list,
        cut,
        lambda data, rng: crafted.exported(data, header=lambda header: changed(header, rng)),
        lambda data, rng: sealed(cut(data, rng)),
        lambda data, rng: odd_record(data, rng, 2),
        odd_length,
    ]
    return cases[k % len(cases)](good.exported, np.random.default_rng([2, k]))


def fuzz_exports(good: Good, tmp_path: Path, step: int) -> list[str]:
    faults: list[str] = []
    db = tmp_path / "db.samafdb"
    with Child() as child:
        for k in range(0, EXPORTS, step):
            path = tmp_path / f"{k}.samafidx"
            path.write_bytes(crafted_export(good, k))
            shutil.copy(good.db, db)
            ended = child.run("index", "import", "--db", db, path)
            faults += ended.faults
            if ended.status == 0:
                faults += whole(child, db)
            elif db.read_bytes() != good.db.read_bytes():
                faults.append(f"{path.name}: it was refused, but the index changed")
    return faults


# -- weights -----------------------------------------------------------------------------------------------------------


def odd_array(source: Path, rng: Rng) -> dict[str, Any]:
    """One array of another shape, type or content."""
    with np.load(source) as archive:
        names = sorted(
            name for name in archive.files if name != "header" and not name.endswith(("_64", "_256"))
        )
        name = names[rng.integers(len(names))]
        value = archive[name]
    number = [0.0, np.nan, np.inf, -1.0, 1e300, 1e-300, 6e4][rng.integers(7)]
    with np.errstate(all="ignore"):
        some = np.where(rng.random(value.shape) < 0.1, number, value.astype(np.float64)).astype(value.dtype)
        odd = [
            np.full_like(value, 0),
            np.full(value.shape, number),
            some,
            np.array(1.0, value.dtype),
            np.atleast_1d(value)[:0],
        ]
    odd += [value[None], value.ravel()[:3], value.astype(">f4"), value.astype(np.int64), np.array(["text"])]
    return {name: odd[rng.integers(len(odd))] if rng.random() < 0.9 else None}


def odd_head(rng: Rng) -> dict[str, Any]:
    """An array whose own head lies."""
    heads = [
        "{'descr': '<f2', 'fortran_order': False, 'shape': (1000000000, 1000000000), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f2', 'fortran_order': False, 'shape': (-1, 1536), }",
        "{'descr': '<f2', 'fortran_order': False, 'shape': (0, 1536), }",
        "{'descr': [('a', '<f2', (1000000000,))], 'fortran_order': False, 'shape': (1,), }",
        "(" * 9000,
        "__import__('os').abort()",
    ]
    head = heads[rng.integers(len(heads))].encode().ljust(117) + b"\n"
    name = ["kernel", "bias", "clarity", "calibration_hops", "header"][rng.integers(5)]
    return {name: b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head + bytes(100)}


def odd_zip(source: Path, data: bytes, rng: Rng) -> bytes:
    """A bomb, or an archive that lies."""
    which = rng.integers(4)
    if which == 0:
        return crafted.weights(source, compression=zipfile.ZIP_DEFLATED, kernel=bytes(500_000_000))
    if which == 1:
        return crafted.weights(source, compression=zipfile.ZIP_LZMA)
    if which == 2:
        return crafted.weights(source, **{f"array{k}": b"" for k in range(20_000)})
    at = data.index(b"PK\1\2")  # the first entry of the directory: its sizes
    return data[: at + 20] + struct.pack("<LL", 2**31, 2**31) + data[at + 28 :]


def crafted_weights(sources: Sequence[Path], k: int) -> bytes:
    source = sources[k % len(sources)]
    cases: list[Case] = [
        lambda data, rng: crafted.weights(source, **odd_array(source, rng)),
        lambda data, rng: crafted.weights(source, head=lambda header: changed(header, rng)),
        lambda data, rng: crafted.weights(source, head=lambda header: odd_body(header, rng)),
        lambda data, rng: odd_zip(source, data, rng),
        lambda data, rng: crafted.weights(source, **odd_head(rng)),
        lambda data, rng: flipped(data, rng, 40),
        cut,
        lambda data, rng: crafted.weights(source, **odd_array(source, rng)),
    ]
    return cases[k // len(sources) % len(cases)](source.read_bytes(), np.random.default_rng([3, k]))


def odd_body(header: dict[str, Any], rng: Rng) -> dict[str, Any]:
    """A header that tells of another network, or of one where the format has none."""
    return {**header, "body": changed(header.get("body", {"kind": "lstm", "values": 256, "units": 384}), rng)}


def fuzz_weights(good: Good, tmp_path: Path, step: int) -> list[str]:
    faults: list[str] = []
    query = good.folder / "query.samaf"
    before = good.db.read_bytes()
    sources = [DEFAULT_PATH, tmp_path / "int4.npz", tmp_path / "cnn.npz"]
    shipped = Weights.load()
    for made, path in zip((shipped.quantised("int4"), random_cnn()), sources[1:], strict=True):
        replace(made, calibration=shipped.calibration).save(path)
    with Child() as child:
        for k in range(0, WEIGHTS, step):
            path = tmp_path / f"{k}.npz"
            path.write_bytes(crafted_weights(sources, k))
            faults += child.run("encode", "--confidence", "--json", "--model", path, good.clip).faults
            faults += child.run("search", "--json", "--model", path, "--db", good.db, query).faults
    return [*faults, *["a search changed the index"] * (good.db.read_bytes() != before)]


FUZZ = [fuzz_fingerprints, fuzz_exports, fuzz_weights]
FUZZED = pytest.mark.parametrize("fuzz", FUZZ, ids=["fingerprints", "exports", "weights"])


@FUZZED
def test_some(good: Good, tmp_path: Path, fuzz: Callable[[Good, Path, int], list[str]]) -> None:
    faults = fuzz(good, tmp_path, 10)
    assert not faults, "\n".join(faults)


@pytest.mark.slow
@FUZZED
def test_all(good: Good, tmp_path: Path, fuzz: Callable[[Good, Path, int], list[str]]) -> None:
    faults = fuzz(good, tmp_path, 1)
    assert not faults, "\n".join(faults)
