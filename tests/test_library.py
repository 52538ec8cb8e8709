"""Adding folders of files, whatever is in them, and identifying clips with the model of the index."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from synth import bursts, tune, write

from samaf import AudioError, Fingerprint, Library, LockedError, MismatchError, ModelError, StoreError
from samaf import ingest as room
from samaf import library as library_room
from samaf.encoder import Encoder
from samaf.ingest import AddReport, Outcome
from samaf.library import SPEED_CLIP_S, _Restored
from samaf.places import default_db
from samaf.settings import check_hop
from samaf.verdict import Limits
from samaf.weights import DEFAULT_PATH, Weights

RATE = 16000
FORCED: dict[str, Any] = {"min_probability": 0.0, "top": 1}


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "index.samaf"


@pytest.fixture
def music(tmp_path: Path) -> Path:
    folder = tmp_path / "music"
    (folder / "deep").mkdir(parents=True)
    for seed, name in enumerate(["a.wav", "b.flac", "deep/c.wav"]):
        write(folder / name, tune(5, seed=seed))
    return folder


@pytest.fixture
def other_model(tmp_path: Path) -> Path:
    """A model that gives other hashes than the one that ships."""
    shipped = Weights.load(DEFAULT_PATH)
    path = tmp_path / "other.npz"
    replace(shipped, arrays={**shipped.arrays, "kernel": -shipped.floats["kernel"]}).save(path)
    return path


def add(db: Path, *paths: Path, **options: object) -> AddReport:
    with Library(db, writable=True, **options) as library:  # type: ignore[arg-type]
        return library.add(list(paths))


def paths_of(db: Path) -> list[str]:
    with Library(db) as library:
        return [Path(track.path).name for track in library.index.tracks()]


# -- adding -----------------------------------------------------------------------------------------------------------


def test_a_folder_is_added_to_the_bottom_in_order_and_once(db: Path, music: Path) -> None:
    (music / "notes.txt").write_text("not audio, and nobody asked")
    (music / "._a.wav").write_text("what some systems leave beside each file")
    report = add(db, music, music / "a.wav")
    assert (report.added, report.skipped, report.failures) == (3, 0, [])
    assert report.duration_s == pytest.approx(15)
    assert paths_of(db) == ["a.wav", "b.flac", "c.wav"]
    again = add(db, music)
    assert (again.added, again.skipped, again.failures) == (0, 3, [])


def test_clips_are_found_in_the_right_file_at_the_right_place(db: Path, tmp_path: Path) -> None:
    music = tmp_path / "m"
    music.mkdir()
    samples = {name: tune(20, seed=seed) for seed, name in enumerate(["x.wav", "y.wav", "z.wav"])}
    for name, x in samples.items():
        write(music / name, x)
    add(db, music)
    clip = samples["y.wav"][round(7.33 * 16000) : round(13.33 * 16000)]
    with Library(db) as library:
        for query in (clip, write(tmp_path / "clip.wav", clip), library.encoder.encode_query(clip)):
            match, *_ = library.search(query, **FORCED)  # type: ignore[arg-type]
            assert match.path == str(music / "y.wav")
            assert match.track_start_s - match.query_start_s == pytest.approx(7.33, abs=0.3)
        short = library.encoder.encode_query(clip)
        longer = Encoder(library.encoder.path, bits=256).encode_query(clip)
        [one, *_], [two, *_] = (library.search(query, **FORCED) for query in (longer, short))  # type: ignore[arg-type]
        assert one.score == pytest.approx(two.score) and one.track_start_s == two.track_start_s


def test_the_same_content_under_another_name_is_an_alias(db: Path, music: Path) -> None:
    shutil.copy(music / "b.flac", music / "deep" / "again.flac")
    report = add(db, music)
    assert (report.added, report.aliases) == (3, 1)
    shutil.copy(music / "a.wav", music / "later.wav")
    report = add(db, music)
    assert (report.added, report.aliases, report.skipped) == (0, 1, 4)
    with Library(db) as library:
        track = library.index.find_path(music / "later.wav")
        assert track is not None and track.path == str(music / "a.wav")
    assert add(db, music).skipped == 5


def test_a_touched_file_is_not_read_as_new(db: Path, music: Path) -> None:
    add(db, music)
    os.utime(music / "a.wav", ns=(1, 1))
    assert add(db, music).skipped == 3
    with Library(db) as library:
        track = library.index.find_path(music / "a.wav")
        assert track is not None and track.mtime_ns == 1 and not track.aliases


def test_a_changed_file_takes_its_old_content_s_place(db: Path, music: Path) -> None:
    add(db, music)
    write(music / "a.wav", tune(6, seed=50))
    report = add(db, music)
    assert (report.added, report.updated, report.skipped) == (0, 1, 2)
    with Library(db) as library:
        tracks = list(library.index.tracks())
        assert sorted(track.duration_s for track in tracks) == [5, 5, 6]
        assert library.index.verify().ok


def test_a_file_that_changes_for_the_worse_keeps_its_old_content(db: Path, music: Path) -> None:
    add(db, music)
    (music / "a.wav").write_bytes(b"scratched")
    report = add(db, music)
    assert [path for path, _ in report.failures] == [str(music / "a.wav")]
    assert len(paths_of(db)) == 3


def test_a_changed_file_whose_old_content_lies_elsewhere_too(db: Path, music: Path) -> None:
    """The other file keeps the content, whichever of the two was there first."""
    shutil.copy(music / "a.wav", music / "twin.wav")
    add(db, music)
    write(music / "a.wav", tune(6, seed=50))
    assert add(db, music).updated == 1
    with Library(db) as library:
        old, new = (library.index.find_path(music / name) for name in ("twin.wav", "a.wav"))
        assert old is not None and old.path == str(music / "twin.wav") and old.duration_s == 5
        assert new is not None and new.duration_s == 6 and new.track_id != old.track_id
    shutil.copy(music / "a.wav", music / "twin.wav")  # and now it is an alias of the new content
    report = add(db, music)
    assert (report.aliases, report.skipped) == (1, 3)
    with Library(db) as library:
        assert [track.duration_s for track in library.index.tracks()] == [5, 5, 6]
        assert library.index.verify().ok
    assert add(db, music).skipped == 4


def test_bad_files_are_reported_and_the_rest_goes_on(db: Path, music: Path) -> None:
    (music / "0-empty.wav").touch()
    (music / "0-empty-too.wav").touch()
    (music / "0-text.wav").write_text("what is this?" * 50)
    write(music / "0-silent.wav", np.zeros(48000, np.float32))
    write(music / "0-short.wav", tune(0.9))
    write(music / "0-one.wav", tune(1 / 16000))
    soundfile.write(music / "0-nan.wav", np.full(32000, np.nan, np.float32), 16000, subtype="FLOAT")
    (music / "0-link.wav").symlink_to(music / "gone.wav")
    os.mkfifo(music / "0-pipe.wav")
    report = add(db, music, music / "missing.wav", music / "deep" / "c.wav")
    assert report.added == 3
    reasons = {Path(path).name: reason for path, reason in report.failures}
    expected = {
        "0-empty.wav": "is empty",
        "0-empty-too.wav": "is empty",
        "0-text.wav": "not audio",
        "0-silent.wav": "silent",
        "0-short.wav": "at least 1 s",
        "0-one.wav": "at least 1 s",
        "0-nan.wav": "NaN",
        "0-link.wav": "No such file",
        "0-pipe.wav": "no regular file",
        "missing.wav": "no such file",
    }
    assert reasons.keys() == expected.keys()
    for name, part in expected.items():
        assert part in reasons[name] and "\n" not in reasons[name] and str(music) not in reasons[name]


def test_a_bug_of_a_decoder_does_not_end_the_run(
    db: Path, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from samaf.isolated import IsolatedStream

    def stream(path: str, bounds: object) -> object:
        if path.endswith("b.flac"):
            raise ZeroDivisionError("two\nlines")
        return IsolatedStream(path)

    monkeypatch.setattr(room, "IsolatedStream", stream)
    report = add(db, music)
    [(path, reason)] = report.failures
    assert path.endswith("b.flac") and "ZeroDivisionError" in reason and "\n" not in reason
    assert report.added == 2


def test_folders_without_audio_are_reported(db: Path, tmp_path: Path, music: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    report = add(db, bare)
    assert report.failures == [(str(bare), "holds no audio files; name the folder that does")]
    (music / "deep" / "loop").symlink_to(music)
    assert add(db, music).added == 3


def test_an_unlisted_folder_is_reported(db: Path, music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Those who run tests as root may read everything, so the system's refusal is put on.
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = add(db, music)
    assert report.added == 2
    assert report.failures == [
        (str(music / "deep"), "cannot be searched (Permission denied); check its permissions")
    ]


def test_titles_come_from_tags_and_else_from_names(db: Path, tmp_path: Path) -> None:
    path = tmp_path / "track01.flac"
    with soundfile.SoundFile(path, "w", 16000, 1) as file:
        file.title, file.artist = "Für Elise", "Beethoven"
        file.write(tune(3))
    write(tmp_path / "no.tags.wav", tune(3, seed=1))
    add(db, path, tmp_path / "no.tags.wav")
    with Library(db) as library:
        tagged, plain = library.index.tracks()
        assert (tagged.title, dict(tagged.tags)["artist"]) == ("Für Elise", "Beethoven")
        assert plain.title == "no.tags"


def test_names_of_any_bytes(db: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \n.wav")
    shutil.copy(write(tmp_path / "x.wav", tune(3)), tmp_path / name)
    (tmp_path / "x.wav").unlink()
    assert add(db, tmp_path / name).added == 1
    assert add(db, tmp_path / name).skipped == 1
    assert paths_of(db) == [name]


# -- batches ----------------------------------------------------------------------------------------------------------


def test_batches_are_stored_by_number(db: Path, music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BATCH_TRACKS", 2)
    seen: list[tuple[str, int]] = []
    stages: list[tuple[int, int]] = []
    with Library(db, writable=True) as library:

        def outcome(result: Outcome) -> None:
            assert library.index.find_path(result.path) is not None  # it is stored when we hear of it
            seen.append((result.status, library.index.stats().n_tracks))

        library.add(
            music, outcome=outcome, progress=lambda done, total, path: stages.append((done, total)), jobs=1
        )
    assert seen == [("added", 2), ("added", 2), ("added", 3)]
    assert stages == [(1, 3), (2, 3), (3, 3)]


def test_batches_are_stored_by_time(db: Path, music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BATCH_S", 0.0)
    counts: list[int] = []
    with Library(db, writable=True) as library:
        library.add(music, outcome=lambda result: counts.append(library.index.stats().n_tracks))
    assert counts == [1, 2, 3]


def test_an_interrupt_keeps_what_is_done_and_the_next_call_goes_on(db: Path, music: Path) -> None:
    def progress(done: int, total: int, path: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with Library(db, writable=True) as library, pytest.raises(KeyboardInterrupt):
        library.add(music, progress=progress)
    assert paths_of(db) == ["a.wav", "b.flac"]
    report = add(db, music)
    assert (report.added, report.skipped) == (1, 2)


def test_many_files_of_one_content(db: Path, music: Path) -> None:
    for i in range(40):
        shutil.copy(music / "a.wav", music / f"copy{i:02d}.wav")
        (music / f"bad{i:02d}.wav").write_text("the same rubbish everywhere")
    report = add(db, music)
    assert (report.added, report.aliases, len(report.failures)) == (3, 40, 40)


# -- fingerprint files ------------------------------------------------------------------------------------------------


def test_fingerprint_files_are_added_like_audio(db: Path, music: Path, tmp_path: Path) -> None:
    prints = tmp_path / "prints"
    prints.mkdir()
    encoder = Encoder(bits=256)
    dense = encoder.encode(music / "a.wav", hop_s=0.1, confidence=True)  # and no window overhangs
    dense.save(prints / "dense.samaf")
    add(prints / "index.samaf", music / "b.flac")  # an index beside them is no fingerprint
    report = add(db, prints)
    assert (report.added, report.failures) == (1, [])
    with Library(db) as library, library.index.snapshot() as snapshot:
        expected = Encoder().encode(music / "a.wav")
        assert np.array_equal(snapshot.segments[0].hashes, expected.hashes)


def test_fingerprints_that_do_not_fit_are_reported(
    db: Path, music: Path, other_model: Path, tmp_path: Path
) -> None:
    made = {
        "few-bits": Encoder(bits=64).encode(music / "a.wav"),
        "sparse": Encoder().encode(music / "a.wav", hop_s=2.0),
        "odd": Encoder().encode(music / "a.wav", hop_s=0.3),
        "stranger": Encoder(other_model).encode(music / "a.wav"),
        "query": Encoder().encode_query(music / "a.wav"),
    }
    for name, print_ in made.items():
        print_.save(tmp_path / f"{name}.samaf")
    (tmp_path / "cut.samaf").write_bytes((tmp_path / "odd.samaf").read_bytes()[:50])
    report = add(db, *(tmp_path / f"{name}.samaf" for name in [*made, "cut"]))
    assert report.added == 0
    parts = ["--bits 128", "--hop 1", "--hop 1", "model", "was made for searching", "damaged or cut off"]
    for (_, reason), part in zip(report.failures, parts, strict=True):
        assert part in reason and "\n" not in reason


# -- the library and its model ----------------------------------------------------------------------------------------


def test_an_index_keeps_its_shape(db: Path, music: Path) -> None:
    add(db, music, bits=64, hop_s=0.5)
    assert add(db, music).skipped == 3
    with Library(db) as library:
        header = library.index.header
        assert (header.bits, header.hop_s, header.query_hop_s, library.encoder.bits) == (64, 0.5, 0.1, 64)
    for options in ({"bits": 128}, {"hop_s": 1.0}):
        with pytest.raises(MismatchError, match="build the index anew"):
            Library(db, writable=True, **options)  # type: ignore[arg-type]
    assert add(db, music, bits=64, hop_s=0.5).skipped == 3


def test_the_query_hop_divides_the_hop(db: Path) -> None:
    with Library(db, writable=True, hop_s=0.25) as library:
        assert library.index.header.query_hop_s == 0.05
        assert library.encoder.encode_query(tune(2)).hop_s == 0.05
    with Library(db) as library:
        assert library.encoder.encode_query(tune(2)).hop_s == 0.05
        assert library.encoder.encode_query(tune(2), hop_s=0.02).hop_s == 0.02


@pytest.mark.parametrize(
    "samples", [np.zeros(32000, np.int16), np.zeros((2, 32000), np.float32), np.float32(1), [1, 2], None]
)
def test_samples_of_another_kind_are_a_mistake_of_the_caller(stocked: Path, samples: Any) -> None:
    with (
        Library(stocked) as library,
        pytest.raises(ValueError, match=r"^clip: [^\n]*give one channel of float"),
    ):
        library.search(samples)


def test_an_index_that_is_only_read_is_not_added_to(
    stocked: Path, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stocked.read_bytes()
    with Library(stocked) as library:
        monkeypatch.setattr(library.encoder, "encode_stream", lambda *args, **options: pytest.fail("encoded"))
        with pytest.raises(StoreError, match="is open for reading only; open it with readonly=False"):
            library.add(music)
    assert stocked.read_bytes() == before


@pytest.mark.parametrize("hop_s", [0.0, -1.0, 0.005, 1.234, 11.0, float("nan"), float("inf")])
def test_impossible_hops_are_refused(db: Path, hop_s: float) -> None:
    with pytest.raises(ValueError, match=r"multiple of 0\.01"):
        check_hop(hop_s)
    with pytest.raises(ValueError, match="hop"):
        Library(db, writable=True, hop_s=hop_s)
    assert not db.exists()


def test_the_model_is_found_again_by_its_id(db: Path, music: Path, other_model: Path, tmp_path: Path) -> None:
    add(db, music, model=other_model)
    with Library(db) as library:
        assert library.encoder.path == other_model
    with pytest.raises(MismatchError, match="was made with model"):
        Library(db, model=DEFAULT_PATH)
    moved = tmp_path / "moved.npz"
    other_model.rename(moved)
    with pytest.raises(ModelError, match="--model"):
        Library(db)
    with Library(db, model=moved) as library:
        assert library.index.stats().n_tracks == 3


def test_an_index_of_an_older_shipped_model(
    db: Path, music: Path, other_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(db, music)
    monkeypatch.setattr(library_room, "DEFAULT_PATH", other_model)
    with pytest.raises(MismatchError, match="not the one that ships"):
        Library(db)


def test_missing_and_locked_indexes(db: Path, music: Path) -> None:
    with pytest.raises(StoreError, match="there is no index"):
        Library(db)
    with Library(db, writable=True), pytest.raises(LockedError):
        Library(db, writable=True)


def test_silence_has_no_name(db: Path, music: Path, tmp_path: Path) -> None:
    add(db, music)
    silent = write(tmp_path / "silent.wav", np.zeros(32000, np.float32))
    with Library(db) as library:
        with pytest.raises(AudioError, match=r"silent\.wav: is silent"):
            library.search(silent)
        with pytest.raises(AudioError, match="clip: is silent"):
            library.search(np.zeros(32000, np.float32))
        with pytest.raises(MismatchError):
            library.search(replace(Fingerprint.load(_saved(library, music, tmp_path)), model_id="0" * 64))


def _saved(library: Library, music: Path, tmp_path: Path) -> Path:
    library.encoder.encode_query(music / "a.wav").save(tmp_path / "q.samaf")
    return tmp_path / "q.samaf"


def test_the_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SAMAF_DB", str(tmp_path / "mine.samaf"))
    assert default_db() == tmp_path / "mine.samaf"
    monkeypatch.delenv("SAMAF_DB")
    monkeypatch.setattr("platformdirs.user_data_path", lambda name, **options: tmp_path / name)
    folder = tmp_path / "samaf"
    assert default_db() == folder / "index.samafdb"
    folder.mkdir()
    (folder / "index.samaf").touch()  # of before indexes had an ending of their own
    assert default_db() == folder / "index.samaf"
    (folder / "index.samafdb").touch()
    assert default_db() == folder / "index.samafdb"


def test_memory_of_waiting_files_is_bounded(db: Path, music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more files are taken up than twice the number of threads, however long the list."""
    for i in range(12):
        write(music / f"n{i:02d}.wav", tune(1.5, seed=100 + i))
    real: Callable[..., object] = room.Adding._take
    most = 0

    def take(self: room.Adding, *args: object) -> object:
        nonlocal most
        most = max(most, len(self.ahead) - len(self.batch))
        return real(self, *args)

    monkeypatch.setattr(room.Adding, "_take", take)
    with Library(db, writable=True) as library:
        library.add(music, jobs=2)
    assert most <= 4


# -- speed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("speed", "seconds"), [(0.9, 10), (0.93, 10), (1.08, 10), (1.1, 10), (1.1, 50)])
def test_a_clip_played_at_another_speed_is_found_and_its_speed_told(
    db: Path, tmp_path: Path, speed: float, seconds: int
) -> None:
    whole = tune(70, seed=7)
    for seed in range(7, 11):
        write(tmp_path / f"{seed}.wav", tune(70, seed=seed))
    add(db, *sorted(tmp_path.glob("*.wav")))
    clip = soxr.resample(whole[16000 * 10 : 16000 * (10 + seconds)], 16000 * speed, 16000)
    with Library(db) as library:
        match = library.search(clip, **FORCED)[0]
        alone = library.search(clip, **FORCED, speed=(1.0, 1.0))
    assert match.title == "7"
    assert match.speed * match.tempo == pytest.approx(speed, abs=0.03)
    assert match.speed == pytest.approx(speed, abs=0.05)
    assert match.track_start_s - match.query_start_s * speed == pytest.approx(10.0, abs=0.4)
    assert (seconds - 2.0) / speed <= match.query_end_s <= seconds / speed + 0.1
    assert not alone or alone[0].score <= match.score + 1e-9 or alone[0].speed == 1.0


def test_a_sure_match_is_tried_at_no_other_speed(
    db: Path, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(db, music)
    asked: list[float] = []
    monkeypatch.setattr(_Restored, "sketches", lambda self: iter(asked.append(1.0) or ()))
    with Library(db) as library:
        assert library.search(tune(5, seed=0))[0].title == "a"
        assert not asked
        library.search(tune(5, seed=40))
        assert len(asked) == 1


def test_only_short_clips_are_tried_at_other_speeds(
    db: Path, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(db, music)
    asked: list[float] = []
    monkeypatch.setattr(_Restored, "sketches", lambda self: iter(asked.append(len(self.samples)) or ()))
    with Library(db) as library:
        for seconds in (SPEED_CLIP_S, SPEED_CLIP_S + 0.1):
            library.search(write(tmp_path / "clip.wav", tune(seconds, seed=40)))
        library.search(library.encoder.encode_query(tune(5, seed=40)))
        assert asked == [SPEED_CLIP_S * RATE]


@pytest.mark.parametrize("seconds", [1.0, 1.04, 1.055, 1.11, 5.0, 30.0])
def test_each_speed_that_is_sketched_can_be_had_exactly(seconds: float) -> None:
    restored = _Restored(Encoder(), tune(seconds), 0.1, [0.9, 0.95, 1.05, 1.1])
    speeds = [speed for speed, _ in restored.sketches()]
    assert speeds[-2:] == [1.05, 1.1]
    for speed in speeds:
        print_ = restored.at(speed)
        assert print_.overhangs and print_.hop_s == 0.1
        assert print_.duration_s == pytest.approx(seconds * speed, abs=1e-3)


def test_a_long_clip_s_sketches_are_the_coarser() -> None:
    encoder = Encoder()
    rows = {}
    for seconds in (2.0, 6.0, 15.0):
        [(_, sketch)] = _Restored(encoder, tune(seconds), 0.1, [1.05]).sketches()
        rows[seconds] = (round(sketch.hop_s, 3), len(sketch))
    assert [hop_s for hop_s, _ in rows.values()] == [0.1, 0.4, 0.4]
    assert rows[6.0][1] == 14 and rows[15.0][1] == 37


# -- ways to ask ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of eight tunes of 30 s."""
    folder = tmp_path_factory.mktemp("stocked")
    for seed in range(8):
        write(folder / f"{seed}.wav", tune(30, seed=seed))
    add(folder / "index.samaf", *sorted(folder.glob("*.wav")))
    return folder / "index.samaf"


def test_the_searcher_and_the_library_give_one_answer(stocked: Path) -> None:
    with Library(stocked) as library:
        clips = [
            (tune(30, 2)[round(7.33 * RATE) :][: 5 * RATE], True),
            (tune(2, 5), True),
            (bursts(5), False),
        ]
        for samples, is_known in clips:
            query = library.encoder.encode_query(samples)
            for limits in ({}, FORCED):
                found = library.search(query, **limits)  # type: ignore[arg-type]
                assert found == library.searcher.search(query, limits=Limits(**limits))  # type: ignore[arg-type]
                assert bool(found) == (is_known or bool(limits))


def test_audio_its_fingerprint_and_the_file_of_it_give_one_answer(stocked: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with Library(stocked) as library:
        for seed, length_s in ((0, 2.0), (3, 3.0), (6, 6.0)):
            clip = tune(30, seed)[round(11.4 * RATE) : round((11.4 + length_s) * RATE)]
            clip = clip + np.float32(0.03) * rng.standard_normal(len(clip)).astype(np.float32)
            query = library.encoder.encode_query(clip)
            query.save(tmp_path / "q.samaf")
            limits = {"min_probability": 0.0, "speed": (1.0, 1.0)}
            answers = [
                library.search(asked, **limits)  # type: ignore[arg-type]
                for asked in (
                    write(tmp_path / "q.wav", clip, subtype="FLOAT"),
                    clip,
                    query,
                    tmp_path / "q.samaf",
                )
            ]
            first = answers[0]
            assert first[0].title == str(seed) and first[0].score > 2
            for answer in answers[1:]:
                assert [match.track_id for match in answer][:3] == [match.track_id for match in first][:3]
                assert answer[0].score == pytest.approx(first[0].score, abs=0.5)
                assert answer[0].track_start_s == pytest.approx(first[0].track_start_s, abs=0.15)


def test_a_second_off_the_grid_is_found_by_what_overhangs(stocked: Path) -> None:
    """Half a second off, no whole window of the clip is near a stored one."""
    found = {"overhanging": 0, "whole": 0}
    with Library(stocked) as library:
        for seed in range(8):
            clip = tune(30, seed)[round(12.5 * RATE) : round(13.5 * RATE)]
            for name, query in (
                ("overhanging", library.encoder.encode_query(clip)),
                ("whole", library.encoder.encode(clip, hop_s=0.1, confidence=True)),
            ):
                match = library.search(query, **FORCED)[0]  # type: ignore[arg-type]
                at_s = match.track_start_s - match.query_start_s
                found[name] += match.title == str(seed) and abs(at_s - 12.5) < 0.3
    assert found["overhanging"] >= 6 and found["whole"] <= 4


def test_tracks_may_be_left_out(stocked: Path) -> None:
    clip = tune(30, 4)[5 * RATE : 12 * RATE]
    with Library(stocked) as library:
        [match] = library.search(clip)
        assert match.title == "4"
        assert library.search(clip, without=[match.track_id]) == []
        others = library.search(clip, without=[match.track_id], **FORCED)  # type: ignore[arg-type]
        assert others[0].track_id != match.track_id


def test_progress_is_told(stocked: Path) -> None:
    told: list[tuple[float, float]] = []
    with Library(stocked) as library:
        library.search(tune(40, seed=2), progress=lambda done, total: told.append((done, total)))
    assert len(told) > 3 and told[-1] == (40.0, 40.0)


def test_a_match_lies_within_the_clip_and_the_track(stocked: Path) -> None:
    """However far windows overhang, and where the clip is longer than the track."""
    around = np.concatenate([tune(3, 50), tune(30, 1), tune(3, 51)])
    with Library(stocked) as library:
        for clip, start_s, at_s, length_s in (
            (tune(30, 1)[: 4 * RATE], 0.0, 0.0, 4.0),
            (tune(30, 1)[26 * RATE :], 0.0, 26.0, 4.0),
            (around, 3.0, 0.0, 30.0),
        ):
            match = library.search(clip)[0]
            assert match.title == "1"
            assert 0 <= match.query_start_s < match.query_end_s <= len(clip) / RATE
            assert 0 <= match.track_start_s < match.track_end_s <= 30.0
            assert match.query_start_s == pytest.approx(start_s, abs=0.8)
            assert match.track_start_s == pytest.approx(at_s, abs=0.8)
            assert match.query_end_s - match.query_start_s == pytest.approx(length_s, abs=1.5)


# -- odd files --------------------------------------------------------------------------------------------------------


def reasons_of(report: AddReport) -> dict[str, str]:
    return {Path(path).name: reason for path, reason in report.failures}


def test_a_pipe_with_the_name_of_a_fingerprint_is_not_waited_for(db: Path, music: Path) -> None:
    os.mkfifo(music / "x.samaf")
    (music / "y.samaf").symlink_to("/dev/zero")
    report = add(db, music)
    assert report.added == 3
    assert reasons_of(report) == dict.fromkeys(
        ["x.samaf", "y.samaf"], "is no regular file; name a file of audio"
    )


def test_a_file_s_name_is_no_reason_against_another_with_its_content(db: Path, music: Path) -> None:
    shutil.copy(music / "b.flac", music / "0.samaf")
    Encoder().encode(tune(5, seed=60)).save(music / "print.samaf")
    shutil.copy(music / "print.samaf", music / "0.opus")
    (music / "1.samaf").touch()
    (music / "1.wav").touch()
    expected = {
        "0.samaf": "not a fingerprint file; make one with `samaf encode`",
        "0.opus": "is a fingerprint, not audio; end its name with .samaf",
        "1.samaf": "is empty; copy or record it again",
        "1.wav": "is empty; copy or record it again",
    }
    report = add(db, music)
    assert (report.added, report.aliases) == (4, 0) and reasons_of(report) == expected
    report = add(db, music)
    assert (report.added, report.aliases, report.skipped) == (0, 0, 4) and reasons_of(report) == expected


def test_a_moved_file_takes_its_old_name_s_place(db: Path, music: Path) -> None:
    shutil.copy(music / "a.wav", music / "copy.wav")
    add(db, music)
    (music / "a.wav").rename(music / "moved.wav")
    report = add(db, music)
    assert (report.added, report.aliases, report.failures) == (0, 1, [])
    with Library(db) as library:
        track = library.index.find_path(music / "moved.wav")
        assert track is not None and len(list(library.index.tracks())) == 3
        assert [track.path, *(alias.path for alias in track.aliases)] == [
            str(music / "copy.wav"),
            str(music / "moved.wav"),
        ]
        assert track.title == "copy"
        assert library.index.find_path(music / "a.wav") is None
        assert library.index.verify().ok
    (music / "copy.wav").unlink()
    assert add(db, music).skipped == 3
    with Library(db) as library:
        track = library.index.find_path(music / "moved.wav")
        assert track is not None and (track.path, track.title, track.aliases) == (
            str(music / "moved.wav"),
            "moved",
            (),
        )
    assert add(db, music).skipped == 3


def test_progress_names_the_file_that_is_done(db: Path, music: Path) -> None:
    for i in range(5):
        write(music / f"n{i}.wav", tune(1.5, seed=100 + i))
    names: list[str] = []
    with Library(db, writable=True) as library:
        library.add(music, progress=lambda done, total, path: names.append(os.path.basename(path)), jobs=2)
    assert names == ["a.wav", "b.flac", "n0.wav", "n1.wav", "n2.wav", "n3.wav", "n4.wav", "c.wav"]


def test_what_is_cut_off_is_added_and_remembered(db: Path, music: Path) -> None:
    path = write(music / "b.flac", tune(20, seed=61))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    shutil.copy(path, music / "copy.flac")
    outcomes: dict[str, Outcome] = {}
    with Library(db, writable=True) as library:
        report = library.add(music, outcome=lambda one: outcomes.update({Path(one.path).name: one}))
    assert (report.added, report.aliases, report.failures) == (3, 1, [])
    assert [Path(path).name for path, _ in report.warnings] == ["b.flac", "copy.flac"]
    [warning] = {warning for _, warning in report.warnings}
    assert "s of the 20.0 s that it states could be read" in warning and "\n" not in warning
    assert {name: one.warning for name, one in outcomes.items()} == {
        "a.wav": "",
        "b.flac": warning,
        "copy.flac": warning,
        "c.wav": "",
    }
    with Library(db, writable=True) as library:
        assert {Path(track.path).name: track.warning for track in library.index.tracks()} == {
            "a.wav": "",
            "b.flac": warning,
            "c.wav": "",
        }
        library.index.compact()
        assert library.search(tune(20, seed=61)[16000 : 16000 * 6])[0].title == "b"
        found = library.search(path)
        assert found[0].title == "b" and found.warning == warning
        assert library.search(music / "a.wav").warning == ""
        write(path, tune(20, seed=61))
        assert library.add(path).updated == 1
        track = library.index.find_path(path)
        assert track is not None and track.warning == ""
    report = add(db, music)
    assert (report.skipped, report.warnings) == (4, [])
