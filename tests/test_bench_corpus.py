"""What a bench runs on: tracks and those held out are apart, the same at every run; bad input is named."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synth import RATE, tune, write

from bench import corpus as corpora
from bench.corpus import Corpus, CorpusError, Materials, Recording, generate, read_folder, read_manifest
from samaf.errors import SamafError


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all tests of this file keep generated sounds."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two levels with ten tracks, one too short, one damaged, one that is no audio; and a manifest."""
    root = tmp_path_factory.mktemp("collection")
    sound = tune(4.0)
    rows = []

    def add(name: str, kind: str, split: str, artist: str = "", seconds: float = 4.0) -> None:
        path = root / name
        path.parent.mkdir(exist_ok=True)
        write(path, sound[: round(seconds * RATE)])
        rows.append({"path": name, "kind": kind, "split": split, "licence": "CC0", "artist": artist})

    for k in range(10):
        add(f"music/{k:02}.flac", "music", "dev", f"artist {k // 2}")
    for k in range(3):
        add(f"music/train{k}.wav", "music", "train", "artist 9" if k else "artist 0")
    for k in range(5):
        add(f"speech/{k}.ogg", "speech", "dev", f"speaker {k}")
    add("music/short.flac", "music", "dev", "artist 0", 2.5)
    add("noise/rain.flac", "noise", "train")
    add("ir/hall.flac", "ir", "dev", seconds=0.4)
    (root / "music" / "damaged.flac").write_bytes(b"fLaC and no more")
    rows.append({"path": "music/damaged.flac", "kind": "music", "split": "dev", "licence": "", "artist": "x"})
    rows.append({"path": "music/gone.flac", "kind": "music", "split": "dev", "licence": "", "artist": "y"})
    (root / "readme.txt").write_text("no audio")
    with open(root / "manifest.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


def ids(recordings: Sequence[Recording]) -> list[str]:
    return [recording.id for recording in recordings]


def all_ids(corpus: Corpus) -> list[list[str]]:
    parts = (corpus.references, corpus.crowd, corpus.outsiders, *vars(corpus.materials).values())
    return [ids(part) for part in parts]


def test_folder(collection: Path, work: Path) -> None:
    corpus = read_folder(collection / "music", work)
    tracks = [*corpus.references, *corpus.outsiders]
    assert sorted(ids(tracks)) == sorted(
        [f"{k:02}.flac" for k in range(10)] + [f"train{k}.wav" for k in range(3)]
    )
    assert len(corpus.outsiders) == 3  # a fifth of 13
    assert corpus.library == corpus.references
    assert all(track.kind == "audio" and track.duration_s == pytest.approx(4.0) for track in tracks)
    assert len(corpus.skipped) == 2
    assert all(any(name in line for line in corpus.skipped) for name in ("damaged.flac", "short.flac"))
    assert len(corpus.notes) == 3  # noise, rooms and voices are generated
    assert all(vars(corpus.materials).values())


def test_ids_are_relative_and_files_found_in_depth(collection: Path, work: Path) -> None:
    corpus = read_folder(collection, work)
    found = set(ids(corpus.references)) | set(ids(corpus.outsiders))
    assert {"music/00.flac", "speech/3.ogg", "noise/rain.flac"} <= found
    assert not any("readme" in name or "manifest" in name for name in found)


def test_reading_a_range(collection: Path, work: Path) -> None:
    track = read_folder(collection / "music", work).references[0]
    whole = track.read()
    assert whole.dtype == np.float32
    assert len(whole) == 4 * RATE
    assert np.array_equal(track.read(1.0, 1.5), whole[RATE : RATE + RATE // 2])


def test_the_seed_shapes_what_is_held_out(collection: Path, work: Path) -> None:
    first = read_folder(collection / "music", work, seed=3)
    assert all_ids(read_folder(collection / "music", work, seed=3)) == all_ids(first)
    others = [ids(read_folder(collection / "music", work, seed=seed).outsiders) for seed in range(6)]
    assert len({tuple(other) for other in others}) > 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    groups=st.lists(st.integers(0, 12), min_size=1, max_size=40),
    named=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_held_out_groups_are_whole_and_a_fifth(groups: list[int], named: bool, seed: int) -> None:
    tracks = [Recording(f"{k}", Path("nowhere"), 9.0) for k in range(len(groups))]
    of = {track.id: f"g{group}" for track, group in zip(tracks, groups, strict=True)} if named else {}
    kept, held = corpora._split(tracks, of, seed)
    assert sorted(ids([*kept, *held]), key=int) == ids(tracks)
    sides = [{of.get(track.id, track.id) for track in side} for side in (kept, held)]
    assert not sides[0] & sides[1]
    assert len(sides[1]) == max(1, round(0.2 * len(sides[0] | sides[1])))
    again = corpora._split(tracks, of, seed)
    assert again == (kept, held)


def test_manifest_splits_kinds_and_crowd(collection: Path, work: Path) -> None:
    corpus = read_manifest(
        collection / "manifest.csv", work, split="dev", kinds=["music"], library=["train", "dev"], seed=1
    )
    references, crowd, outsiders, noises, rooms, voices = all_ids(corpus)
    assert sorted(references + outsiders) == [f"music/{k:02}.flac" for k in range(10)]
    assert len(outsiders) == 2  # one artist of five
    assert int(outsiders[0][6:8]) // 2 == int(outsiders[1][6:8]) // 2
    assert noises == ["noise/rain.flac"]  # of another split, as there is none in this one
    assert rooms == ["ir/hall.flac"]
    assert len(voices) == 1
    assert voices[0].startswith("speech/")
    held = set(outsiders + voices)
    assert not held & set(ids(corpus.library))
    expected = {f"music/train{k}.wav" for k in range(3)} | {f"speech/{k}.ogg" for k in range(5)}
    assert set(crowd) - {"music/short.flac"} >= expected - held - {"music/train0.wav"}
    # what is by a held-out artist does not come back with the crowd
    assert ("music/train0.wav" in crowd) == (outsiders[0] != "music/00.flac")
    assert ids(corpus.library) == references + crowd
    assert {track.kind for track in corpus.library} == {"music", "speech"}
    assert corpus.notes == ["no noise in split dev; that of the other splits is used"]
    assert sum("damaged.flac" in line for line in corpus.skipped) == 1
    assert sum("gone.flac" in line for line in corpus.skipped) == 1


def test_manifest_as_a_whole(collection: Path, work: Path) -> None:
    corpus = read_manifest(collection / "manifest.csv", work, seed=2)
    references, crowd, outsiders, _, _, voices = all_ids(corpus)
    assert len(references + outsiders) == 18
    assert not crowd
    assert {track.kind for track in corpus.references} == {"music", "speech"}
    assert set(voices) <= set(outsiders) or "generated" in corpus.notes[-1]
    assert all_ids(read_manifest(collection / "manifest.csv", work, seed=2)) == all_ids(corpus)


def test_nothing_usable_is_one_clear_line(collection: Path, work: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    (tmp_path / "few").mkdir()
    write(tmp_path / "few" / "one.wav", tune(4.0))
    cases = [
        (lambda: read_folder(tmp_path / "nowhere", work), "nowhere.*no such"),
        (lambda: read_folder(tmp_path / "few", work), "two tracks at least, found 1"),
        (lambda: read_folder(collection / "ir", work), "found 0; left out: .*hall.flac"),
        (lambda: read_manifest(tmp_path / "no.csv", work), "no.csv: cannot be read"),
        (lambda: read_manifest(tmp_path / "bad.wav", work), "has no column path"),
        (lambda: read_manifest(collection / "manifest.csv", work, split="tset"), "split tset: .* found 0"),
    ]
    (tmp_path / "empty").mkdir()
    cases.append((lambda: read_folder(tmp_path / "empty", work), "empty.*holds no audio"))
    for read, words in cases:
        with pytest.raises(CorpusError, match=words) as caught:
            read()
        assert isinstance(caught.value, SamafError)
        assert "\n" not in str(caught.value)


def test_manifest_without_a_column_or_text(tmp_path: Path, work: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("path,kind\na.wav,music\n")
    with pytest.raises(CorpusError, match="has no column split"):
        read_manifest(manifest, work)
    manifest.write_bytes(b"path,kind,split\n\xff\xfe.wav,music,dev\n")
    with pytest.raises(CorpusError, match="UTF-8"):
        read_manifest(manifest, work)
    manifest.write_text("")
    with pytest.raises(CorpusError, match="has no column path, kind, split"):
        read_manifest(manifest, work)


def test_generated_corpus(tmp_path: Path) -> None:
    corpus = generate(tmp_path, tracks=3, seed=4)
    assert (len(corpus.references), len(corpus.outsiders)) == (2, 1)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.flac")}
    assert len(files) == 3 + 18
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path not in files]

    again = generate(tmp_path, tracks=3, seed=4)
    assert all_ids(again) == all_ids(corpus)
    next(iter(files)).unlink()  # what is missing is made again, the same
    generate(tmp_path, tracks=3, seed=4)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.flac")} == files


def test_generated_sounds_are_loud_and_different(work: Path) -> None:
    materials, notes = corpora._completed(Materials(), work)
    assert len(notes) == 3
    for part in (materials.noises, materials.rooms, materials.voices):
        heard = [recording.read() for recording in part]
        assert len(heard) == 6
        for samples in heard:
            assert np.isfinite(samples).all()
            assert 0.5 < np.abs(samples).max() < 0.8
        assert len({samples[:8000].tobytes() for samples in heard}) == 6
    for recording in materials.rooms:  # the direct sound comes first and is the loudest
        assert np.argmax(np.abs(recording.read())) == 0


def test_the_digest_of_materials_follows_their_content(work: Path, tmp_path: Path) -> None:
    sound = Recording("a.wav", write(tmp_path / "a.wav", tune(1.0)), 1.0)
    before = Materials(noises=[sound]).digest
    assert Materials(noises=[sound]).digest == before
    assert Materials(rooms=[sound]).digest != before
    write(tmp_path / "a.wav", tune(1.0, seed=1))
    assert Materials(noises=[sound]).digest != before
