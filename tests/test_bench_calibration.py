"""Calibration: E-values against what is due, clips that depend on their number alone, what is hidden."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import correlate
from synth import RATE, tune, write

from bench import calibration, calibration_report, evalues, masked, reliability, unknowns
from bench.calibration import Answered, Plan, Setting
from bench.cli import main
from bench.clip_cache import ClipCache
from bench.corpus import CorpusError, Materials, Pool, Recording, read_pool
from bench.drawn import HashModel
from bench.masked import Answer, Masked, SharedEncoder
from bench.protocol import RunError
from bench.unknowns import Cutter
from samaf.errors import AudioError
from samaf.settings import MIN_PROBABILITY
from samaf.weights import DEFAULT_PATH, Weights

# -- the numbers -------------------------------------------------------------------------------------------------------


def test_shares_that_are_due():
    assert evalues.due(1.0) == pytest.approx(1 - 1 / math.e)
    assert evalues.due(0.1) == pytest.approx(0.0951626)
    assert evalues.due(1e-12) == pytest.approx(1e-12)


def test_what_reaches_an_evalue():
    scores = np.array([-math.inf, -0.5, 0.0, 0.99, 1.0, 2.5])
    assert evalues.reach(scores, 1.0).tolist() == [False, False, True, True, True, True]
    assert evalues.reach(scores, 0.1).tolist() == [False, False, False, False, True, True]


def test_observed_by_due():
    level = evalues.level(np.array([1.5, 0.2, 0.1, -3.0]), list("abcd"), 0.1)
    assert (level.observed, level.due) == (0.25, pytest.approx(0.0951626))
    assert level.ratio == pytest.approx(0.25 / 0.0951626)
    assert level.ratio_interval[1] == pytest.approx(level.interval[1] / 0.0951626)


def test_levels_at_which_ten_are_due():
    def shown(n: int) -> list[float]:
        return [level.evalue for level in evalues.levels(np.zeros(n), [f"{k}" for k in range(n)])]

    assert shown(15) == []
    assert shown(16) == [1.0]
    assert shown(105) == [1.0]
    assert shown(106) == [1.0, 0.1]
    assert shown(1005) == [1.0, 0.1]
    assert shown(1006) == [1.0, 0.1, 0.01]


def test_bootstrap_resamples_clusters():
    # two clusters of which one always hits: of two draws, both, one or none of the clusters are that one
    hits = np.array([True] * 10 + [False] * 10)
    assert evalues.bootstrap(hits, ["a"] * 10 + ["b"] * 10) == (0.0, 1.0)
    # a cluster each: nearly the binomial interval, 0.5 +- 1.96 * sqrt(0.25 / 400)
    low, high = evalues.bootstrap(np.arange(400) % 2 == 0, [f"{k}" for k in range(400)])
    assert (low, high) == (pytest.approx(0.451, abs=0.01), pytest.approx(0.549, abs=0.01))
    # all clusters alike: no doubt
    assert evalues.bootstrap(hits, ["a", "b"] * 10) == (0.5, 0.5)


def test_bootstrap_weighs_clusters_by_their_queries():
    low, high = evalues.bootstrap(np.array([True] + [False] * 9), ["a"] + ["b"] * 9)
    assert (low, high) == (0.0, 1.0)
    middle = np.mean(
        [evalues.bootstrap(np.array([True] + [False] * 9), ["a"] + ["b"] * 9, seed=s) for s in range(3)]
    )
    assert 0 < middle < 1


def test_bootstrap_is_the_same_again_and_unknown_for_one_cluster():
    hits, names = np.arange(60) % 3 == 0, [f"{k // 4}" for k in range(60)]
    assert evalues.bootstrap(hits, names, seed=4) == evalues.bootstrap(hits, names, seed=4)
    assert all(map(math.isnan, evalues.bootstrap(hits, ["a"] * 60)))


def test_ranks():
    ranked = evalues.ranked(np.array([1.0, -math.inf, 2.0, -1.0]))
    assert [share for _, share in ranked] == [0.25, 0.5, 0.75]
    assert [evalue for evalue, _ in ranked] == pytest.approx([0.01, 0.1, 10.0])
    assert evalues.ranked(np.array([400.0, -400.0])) == [(0.0, 0.5), (1e300, 1.0)]


# -- clips -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    folder = tmp_path_factory.mktemp("tracks")

    def made(k: int, kind: str, seconds: float) -> Recording:
        path = write(folder / f"{kind}{k}.flac", tune(seconds, seed=k))
        return Recording(path.name, path, seconds, kind)

    music = [made(k, "music", 9.0) for k in range(4)]
    noise = [Recording("noise", write(folder / "noise.wav", tune(4.0, seed=50)), 4.0, "noise")]
    artists = {"music0.flac": "Ann", "music1.flac": "Ann", "music2.flac": "Bob", "music3.flac": "Cy"}
    return Pool("four tunes", music, music, Materials(noises=noise), artists)


def cutter(pool: Pool, folder: Path, *conditions: str, seed: int = 1) -> Cutter:
    return Cutter(pool, conditions or ("clean", "noise5"), ClipCache(folder), seed)


def test_a_clip_depends_on_its_number_alone(pool, tmp_path):
    first = cutter(pool, tmp_path / "a").cut("music", 2.0, 5)
    assert isinstance(first, unknowns.Unknown)
    other = cutter(pool, tmp_path / "b")
    _ = [other.cut("music", s, i) for s, i in ((3.0, 5), (2.0, 0), (2.0, 4))]
    again = other.cut("music", 2.0, 5)
    assert replace(again, audio="") == replace(first, audio="")
    sounds = [soundfile.read(clip.audio)[0] for clip in (first, again)]
    assert len(sounds[0]) == 2 * RATE
    assert np.array_equal(*sounds)
    seeded = cutter(pool, tmp_path / "a", seed=2).cut("music", 2.0, 5)
    assert not np.array_equal(soundfile.read(seeded.audio)[0], sounds[0])
    assert first.artist == pool.artists[first.tracks[0]]


def test_each_condition_comes_as_often_as_every_other(pool, tmp_path):
    names = ("clean", "noise5", "noise0")
    made = [cutter(pool, tmp_path, *names).condition("music", 2.0, i).name for i in range(12)]
    assert all(sorted(made[k : k + 3]) == sorted(names) for k in range(0, 12, 3))
    assert made[:3] != made[3:6] or made[3:6] != made[6:9]


def test_long_clips_are_joined_from_different_recordings(pool, tmp_path, monkeypatch):
    one = cutter(pool, tmp_path, "clean")
    assert one.pieces("music", 8.0)[0] == 1
    assert one.pieces("music", 12.0)[0] == 2  # none is long enough
    clip = one.cut("music", 12.0, 0)
    assert len(clip.tracks) == len(set(clip.tracks)) == 2
    samples = soundfile.read(clip.audio)[0]
    assert len(samples) == 12 * RATE
    with pytest.raises(ValueError, match="4 recordings of music"):
        one.pieces("music", 40.0)
    assert "no clip could be cut" in one.cut("music", 40.0, 0)
    monkeypatch.setattr(unknowns, "LONGEST_PIECE_S", 3.0)
    assert one.pieces("music", 8.0, 1.1)[0] == 3
    assert one.pieces("music", 3.0, 1.1)[0] == 1


def test_the_parts_of_a_joined_clip_are_its_recordings(pool, tmp_path):
    clip = cutter(pool, tmp_path, "clean").cut("music", 12.0, 1)
    samples = soundfile.read(clip.audio)[0]
    tracks = {track.id: track for track in pool.tracks}
    for name, part in zip(clip.tracks, np.split(samples, 2), strict=True):
        whole = tracks[name].read()
        at = np.argmax(correlate(whole, part, "valid", "fft"))
        np.testing.assert_allclose(part, whole[at : at + len(part)], atol=2e-4)


# -- hiding ------------------------------------------------------------------------------------------------------------


@dataclass
class Track:
    track_id: int


@dataclass
class FakeMatch:
    track_id: int
    path: str
    evalue: float
    score: float
    log_odds: float


class FakeLibrary:
    """Names the first track that is not hidden, with its id as the score."""

    def __init__(self, names: list[str], refuses: bool = False) -> None:
        self.index, self.names, self.refuses = self, names, refuses
        self.asked: list[dict] = []

    def find_path(self, path: str) -> Track | None:
        name = Path(path).name
        return Track(self.names.index(name)) if name in self.names else None

    def search(self, samples: np.ndarray, **options) -> list[FakeMatch]:
        self.asked.append(options)
        if self.refuses:
            raise AudioError("clip: is silent")
        left = [k for k in range(len(self.names)) if k not in options["without"]]
        return [FakeMatch(k, f"/far/{self.names[k]}", 10.0**-k, float(k), k - 1.0) for k in left[:1]]


def fake(pool: Pool, refuses: bool = False) -> Masked:
    return Masked(FakeLibrary([track.id for track in pool.library] + ["drawn"], refuses), pool.library)


def test_a_clip_and_copies_of_its_recordings_are_hidden(pool, tmp_path):
    clip = cutter(pool, tmp_path, "clean").cut("music", 12.0, 0)
    library = fake(pool)
    left = [track.id for track in pool.library if track.id not in clip.tracks]
    held, line = calibration.answers(clip, {"real": library}, {clip.tracks[1]: frozenset({left[0], "gone"})})
    assert held.held and library.library.asked[0]["without"] == set()
    assert held.right is (held.named in {*clip.tracks, left[0]})
    asked = library.library.asked[1]
    hidden = {library.track_ids[name] for name in (*clip.tracks, left[0])}
    assert asked == {"min_probability": 0.0, "without": hidden}
    assert line.named == left[1]
    assert line.score == library.track_ids[left[1]] and line.log_odds == line.score - 1.0
    assert not line.held and not line.right
    assert (line.tracks, line.artist, line.library) == (list(clip.tracks), clip.artist, "real")
    everything = frozenset(track.id for track in pool.library)
    held, line = calibration.answers(clip, {"real": library}, {clip.tracks[0]: everything})
    assert held.right
    assert line.named == "/far/drawn"


def test_what_cannot_be_searched_has_no_answer(pool):
    assert fake(pool, refuses=True).ask(np.zeros(RATE, np.float32), []) == Answer()


def test_an_encoding_is_made_once():
    class Counting:
        bits, calls = 128, 0

        def encode_stream(self, blocks, *, hop_s):
            self.calls += 1
            return sum(map(len, blocks)), hop_s

    inner = Counting()
    shared = SharedEncoder(inner)
    blocks = [np.ones(3, np.float32), np.zeros(2, np.float32)]
    assert shared.encode_stream(iter(blocks), hop_s=0.1) == (5, 0.1)
    assert shared.encode_stream(iter([np.concatenate(blocks)]), hop_s=0.1) == (5, 0.1)
    assert inner.calls == 1
    shared.encode_stream(iter(blocks), hop_s=0.5)
    shared.encode_stream(iter(blocks[::-1]), hop_s=0.5)
    assert inner.calls == 3
    assert shared.bits == 128


# -- drawn hashes ------------------------------------------------------------------------------------------------------


def test_drawn_hashes_have_the_statistics_of_their_models():
    rng = np.random.default_rng(0)
    bits = 64
    # bits that go together by pairs, lean to one side, and last
    mix = np.eye(bits) + np.roll(np.eye(bits), 1, axis=1) * (np.arange(bits) % 2 == 0)[:, None]
    truth = HashModel(
        np.linspace(-1, 1, bits).astype(np.float32),
        (0.5 * np.eye(bits)).astype(np.float32),
        (0.75**0.5 * mix / np.linalg.norm(mix, axis=1)[:, None]).astype(np.float32),
        0.6,
    )
    drawn = truth.draw(rng, 300, 60)
    assert drawn.shape == (300, 60, 1)
    fitted = HashModel.of(list(drawn))
    assert np.abs(fitted.mean - truth.mean).max() < 0.1
    assert fitted.memory == pytest.approx(0.6, abs=0.1)
    covariance = fitted.passing @ fitted.passing.T
    expected = truth.passing @ truth.passing.T
    assert np.abs(covariance - expected).mean() < 0.05
    assert np.trace(fitted.lasting @ fitted.lasting.T) / bits == pytest.approx(0.25, abs=0.07)


def test_nothing_can_be_drawn_after_nothing():
    with pytest.raises(CorpusError, match="four seconds"):
        HashModel.of([np.ones((2, 1), np.uint64)])


# -- going on ----------------------------------------------------------------------------------------------------------

PLAN = Plan(("music",), (2.0, 12.0), per_cell=3, long_per_cell=2, drawn=(10,))


class Here:
    """Stands for a pool of processes: works at once, in this one."""

    def __init__(self, jobs, context, begin, args) -> None:
        begin(*args)

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        pass

    def submit(self, work, *args):
        @dataclass
        class Done:
            value: object

            def result(self):
                return self.value

        return Done(work(*args))


@pytest.fixture
def asked(pool, monkeypatch) -> list[FakeLibrary]:
    """Libraries that are asked, in place of real ones."""
    fakes: list[FakeLibrary] = []

    def opened(paths, recordings, model):
        found = {label: fake(pool) for label in paths}
        fakes.extend(library.library for library in found.values())
        return found

    monkeypatch.setattr(masked, "make_real", lambda *args, **options: None)
    monkeypatch.setattr(masked, "make_drawn", lambda *args, **options: None)
    monkeypatch.setattr(masked, "opened", opened)
    monkeypatch.setattr(calibration, "follow_parent", lambda: None)
    monkeypatch.setattr(calibration, "ProcessPoolExecutor", Here)
    return fakes


def measure(pool: Pool, out: Path, plan: Plan = PLAN, **options) -> list[Answered]:
    return calibration.measure(
        cutter(pool, out.parent / "cache", "clean"), plan, out, **{"copies": {}, "bits": 64} | options
    )


def test_every_library_is_asked_for_every_clip(pool, tmp_path, asked):
    lines = measure(pool, tmp_path / "out")
    assert {(line.library, line.query) for line in lines} == {
        (library, query)
        for library in ("real", "real+10")
        for query in (*(f"music_2_{i:05d}" for i in range(3)), *(f"music_12_{i:05d}" for i in range(2)))
    }
    assert [len(library.asked) for library in asked] == [10, 10]  # each as it is, and hidden


def test_what_was_stopped_goes_on(pool, tmp_path, asked):
    out = tmp_path / "out"
    whole = measure(pool, out)
    path = out / calibration.ANSWERS
    lines = path.read_text().splitlines(keepends=True)
    for kept, missing in (
        (10, [4, 6]),
        (9, [6, 6]),
    ):  # of the third clip, one library's answers, and half of them
        path.write_text("".join(lines[:kept]) + lines[kept][:20])
        asked.clear()
        assert sorted(measure(pool, out), key=str) == sorted(whole, key=str)
        assert [len(library.asked) for library in asked] == missing
    asked.clear()
    more = measure(pool, out, replace(PLAN, per_cell=4, drawn=()))
    assert [len(library.asked) for library in asked] == [2]
    assert len(more) == 12  # of the real library
    assert len(measure(pool, out, replace(PLAN, lengths_s=(2.0,), drawn=()))) == 8


def test_a_folder_of_another_calibration_is_left_alone(pool, tmp_path, asked):
    measure(pool, tmp_path / "out", replace(PLAN, per_cell=1))
    for other in ({"bits": 128}, {"copies": {"music0.flac": frozenset({"music1.flac"})}}):
        with pytest.raises(RunError, match="--out"):
            measure(pool, tmp_path / "out", **other)
    # calibrated anew, so that E-values differ
    other = replace(Weights.load(DEFAULT_PATH), facts={"calibrated": "anew"})
    other.save(tmp_path / "other.npz")
    with pytest.raises(RunError, match="--out"):
        measure(pool, tmp_path / "out", model=str(tmp_path / "other.npz"))
    (tmp_path / "out" / calibration.SETTING).write_text("{")
    with pytest.raises(RunError, match="damaged"):
        measure(pool, tmp_path / "out")


# -- the report --------------------------------------------------------------------------------------------------------


def lines_of(
    i: int, score: float | None, library: str = "real", kind: str = "music", length_s: float = 5.0
) -> list[Answered]:
    """A clip that the library holds, found with a score of 4, or named wrongly for every third, and hidden."""
    hidden = Answered(
        query=f"{kind}_{length_s:g}_{i:05d}",
        kind=kind,
        length_s=length_s,
        condition="clean",
        tracks=["t"],
        artist=f"artist {i // 2}",
        library=library,
        held=False,
        score=score,
        evalue=None if score is None else 10.0**-score,
        log_odds=None if score is None else score - 1.0,
        named="x",
        right=False,
    )
    held = replace(hidden, held=True, score=4.0, evalue=1e-4, log_odds=3.0, named="t", right=i % 3 > 0)
    return [hidden, held]


def test_cells_and_their_json():
    scores = [3.0] * 10 + [-1.0] * 28 + [None] * 2
    lines = [line for i, score in enumerate(scores) for line in lines_of(i, score)]
    [cell] = calibration_report.cells(lines)
    record = json.loads(json.dumps(cell.to_json(), allow_nan=False))
    assert (record["library"], record["kind"], record["length_s"]) == ("real", "music", 5.0)
    assert (record["n"], record["clusters"]) == (40, 20)
    [at] = record["levels"]  # fewer than ten are due at 0.1
    assert (at["evalue"], at["observed"]) == (1.0, 0.25)
    assert at["ratio"] == pytest.approx(0.25 / (1 - 1 / math.e))
    low, high = at["ratio_interval"]
    assert low < at["ratio"] < high
    assert (record["min_probability"], record["named"]) == (MIN_PROBABILITY, 0.25)
    assert record["found"] == record["told"] == 26 / 40
    assert calibration_report.cells(lines[::-1])[0].to_json() == cell.to_json()
    [lonely] = calibration_report.cells(lines_of(0, 1.0))
    assert lonely.to_json()["named_interval"] is None


def test_probabilities_are_held_against_what_came_true():
    lines = [
        line
        for kind in ("music", "speech")
        for i in range(60 if kind == "music" else 50)
        for line in lines_of(i, i / 30 - 1.0, kind=kind)
    ] + lines_of(0, 9.0, length_s=60.0)  # too long to count
    [found] = calibration_report.reliabilities(lines)
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [one["count"] for one in record["bins"]] == [20] * 10  # 50 of each kind, as they are and hidden
    assert [one["right"] for one in record["bins"][:5]] == [0.0] * 5
    assert record["bins"][-1]["probability"] == pytest.approx(1 / 1.001)
    assert np.mean([one["right"] for one in record["bins"][5:]]) == pytest.approx(33 / 50)
    assert record["brier"] > 0.16  # a third of what is nearly certain is wrong
    table = calibration_report.reliability_table(found)
    assert len(table.rows) == 10 and len(table.columns) == len(table.rows[0].cells) + 1
    assert calibration_report.reliabilities([line for line in lines if line.length_s == 60.0]) == []


def test_bins_of_true_probabilities_lie_on_the_diagonal():
    rng = np.random.default_rng(1)
    log_odds = rng.normal(0.0, 1.5, 20_000)
    right = rng.random(20_000) < reliability.probabilities(log_odds)
    clusters = [f"{k % 500}" for k in range(20_000)]
    found = reliability.bins(log_odds, right, clusters)
    assert [one.count for one in found] == [2000] * 10
    assert all(one.interval[0] - 0.01 < one.probability < one.interval[1] + 0.01 for one in found)
    likely = reliability.probabilities(log_odds)
    assert reliability.brier(log_odds, right) == pytest.approx(np.mean(likely * (1 - likely)), abs=0.005)
    assert reliability.brier(np.array([np.inf, -np.inf]), np.array([True, False])) == 0.0
    assert len(reliability.bins(log_odds[:3], right[:3], clusters[:3])) == 3


def test_the_page_has_a_table_a_library_and_a_chart_a_kind(tmp_path):
    lines = [
        line
        for library in ("real", "real+10000")
        for kind in ("music", "speech")
        for length_s in (1.0, 30.0)
        for i in range(20 if length_s < 30 else 2)
        for line in lines_of(i, 1.0 - i / 20, library, kind, length_s)
    ]
    found = calibration_report.cells(lines)
    setting = Setting("<data>", 12, 1.5, 128, "", ["clean"], "", 1)
    trusted = calibration_report.reliabilities(lines)
    page = calibration_report.write(found, trusted, setting, "bench calibration", tmp_path).read_text()
    assert page.count("<table") == 4 and page.count("<svg") == 4
    assert "10,000 drawn tracks" in page and "&lt;data&gt;" in page and "nan" not in page
    [real, drawn] = calibration_report.by_library(found)
    table = calibration_report.table(real)
    assert [row.head for row in table.rows] == ["music, 1 s", "music, 30 s", "speech, 1 s", "speech, 30 s"]
    assert table.rows[1].cells[2].text == "–"  # of two clips, fewer than ten are due
    assert {len(row.cells) + 1 for row in table.rows} == {len(table.columns)}
    assert len(drawn) == 4


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifest")
    rows = [
        ("m1.flac", "music", "check", "Ann"),
        ("m2.flac", "music", "train", "Bob"),
        ("s1.flac", "speech", "check", "Cy"),
        ("n1.flac", "noise", "check", ""),
        ("i1.flac", "ir", "train", ""),
        ("i2.flac", "ir", "dev", ""),
    ]
    for k, (name, *_) in enumerate(rows):
        write(folder / name, tune(4.0, seed=k))
    with open(folder / "manifest.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "kind", "split", "speaker_or_artist"])
        writer.writerows(rows)
    return folder / "manifest.csv"


def test_a_pool_holds_nothing_out(manifest, tmp_path):
    pool = read_pool(manifest, tmp_path, split="check", kinds=["music"])
    assert [track.id for track in pool.tracks] == ["m1.flac"]
    assert [track.id for track in pool.library] == ["m1.flac", "m2.flac", "s1.flac"]
    assert pool.artists["m2.flac"] == "Bob"
    few = read_pool(manifest, tmp_path, split="check", library=["train"])
    assert [track.id for track in few.library] == ["m2.flac"]
    with pytest.raises(CorpusError, match="no usable recording of music"):
        read_pool(manifest, tmp_path, split="nowhere", kinds=["music"])


def test_rooms_of_the_tuning_split_come_first(manifest, tmp_path):
    pool = read_pool(manifest, tmp_path, split="check")
    assert [room.id for room in pool.materials.rooms] == ["i2.flac"]
    assert [noise.id for noise in pool.materials.noises] == ["n1.flac"]
    assert pool.notes == ["no ir in split check; that of split dev is used"]
    other = read_pool(manifest, tmp_path, split="dev", kinds=["ir"])
    assert "no noise in split dev; that of the other splits is used" in other.notes


def test_the_command_prints_a_table_or_json(pool, manifest, tmp_path, asked, monkeypatch, capsys):
    monkeypatch.setattr("bench.clips.EVALUATION", ("clean", "noise5"))
    (tmp_path / "copies.csv").write_text("path_a,path_b,share,lag_s\nm1.flac,m2.flac,1.0,0.0\n")
    options = ["--manifest", str(manifest), "--split", "check", "--kind", "music", "--lengths", "2"]
    options += ["--per-cell", "16", "--copies", str(tmp_path / "copies.csv"), "--out", str(tmp_path / "out")]
    assert main(["calibration", *options, "--json"]) == 0
    record, trusted = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert (record["kind"], record["length_s"], record["n"]) == ("music", 2.0, 16)
    assert sum(one["count"] for one in trusted["bins"]) == 32
    assert main(["calibration", *options]) == 0
    ran = capsys.readouterr()
    assert "music, 2 s" in ran.out and "due 63.2 %" in ran.out
    assert "calibration.html" in ran.err and "split dev" in ran.err
    assert (tmp_path / "out" / "calibration.html").is_file()
