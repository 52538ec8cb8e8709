"""What vectors tell of recordings: what is in them is told, what is not is chance; no recording is on both sides."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import in_ci
from synth import RATE, bursts, tune, write

if not in_ci():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'samaf[bench]'")

from bench import attributes
from bench.attributes import (
    ASKED,
    CLASSIFIERS,
    Attribute,
    Task,
    attribute_of,
    classify,
    folds,
    recalls,
    resampled,
    results,
    table,
)
from bench.cli import main
from bench.cli.attributes import EMBEDDINGS
from bench.clip_cache import ClipCache
from bench.corpus import Materials, Pool, Recording
from bench.degrade import parse
from bench.excerpts import WHOLE, Excerpt, Listener, Plan
from bench.representations import Float32, Representation, Vectors, of_contrastive, of_mfcc, of_samaf, of_unet
from samaf import Encoder
from samaf.cli.common import DONE, FAILED
from samaf.errors import ModelError
from samaf.hamming import distance_matrix, pack

WAYS = [(how, way) for how in CLASSIFIERS for way in ASKED]


def quiet(*_: object) -> None:
    """Hears of progress and of what is left out."""


def task_of(classes: Sequence[str]) -> Task:
    """A recording for each class named."""
    return Task("", [(f"r{k}", WHOLE) for k in range(len(classes))], np.array(classes))


def bits_of(task: Task, share: float, seed: int = 0, n: int = 12) -> dict[Excerpt, Vectors]:
    """64 random bits a second, of which a share is the class's own, the same in all its recordings."""
    rng = np.random.default_rng(seed)
    own = {name: rng.choice([-1, 1], 64) for name in task.names}
    described = {}
    for excerpt, name in zip(task.excerpts, task.classes, strict=True):
        rows = rng.choice([-1, 1], (n, 64))
        described[excerpt] = np.where(rng.random((n, 64)) < share, own[str(name)], rows).astype(np.int8)
    return described


@pytest.mark.parametrize("has_units", [False, True])
def test_what_is_in_the_vectors_is_told(has_units: bool) -> None:
    task = task_of(["a"] * 7 + ["b"] * 3 + ["c"] * 2)
    scores = classify(task, bits_of(task, 0.8), has_units=has_units)
    assert list(scores) == WAYS
    for found in scores.values():
        assert found.shape == (12,) and found.mean() > 0.98


def test_what_is_not_in_the_vectors_is_chance() -> None:
    task = task_of(["a", "b"] * 30)
    for found in classify(task, bits_of(task, 0.0)).values():
        again = resampled(task, found, seed=1)
        assert abs(np.mean(list(recalls(task, found).values())) - 0.5) < 0.2
        assert np.quantile(again, 0.005) < 0.5 < np.quantile(again, 0.995)


def test_a_recording_gives_nothing_away_to_itself() -> None:
    # each recording has bits of its own, which tell nothing of the others
    task = task_of(["a", "b"] * 20)
    rng = np.random.default_rng(0)
    described = {one: np.tile(rng.choice([-1, 1], 64), (5, 1)).astype(np.int8) for one in task.excerpts}
    for found in classify(task, described).values():
        assert abs(found.mean() - 0.5) < 0.25


def test_the_nearest_is_that_of_the_smallest_hamming_distance() -> None:
    task = task_of([f"class {k // 2}" for k in range(20)])
    described = bits_of(task, 0.3, n=6)
    found = classify(task, described)["nearest", "second"]
    part = folds(task, 1)
    codes = [pack(described[excerpt] > 0) for excerpt in task.excerpts]
    for k, rows in enumerate(codes):
        others = [j for j in range(len(codes)) if part[j] != part[k]]
        distances = np.stack([distance_matrix(rows, codes[j]).min(axis=1) for j in others])
        of_class = task.classes[others] == task.classes[k]
        ties = (distances == distances.min(axis=0)) & of_class[:, None]
        only = (distances == distances.min(axis=0)).sum(axis=0) == 1
        assert (ties.any(axis=0) & only).mean() <= found[k] + 1e-9 <= ties.any(axis=0).mean() + 2e-9


def test_units_do_not_count() -> None:
    task = task_of(["a", "b"] * 5)
    told = bits_of(task, 0.8)
    rng = np.random.default_rng(1)
    described = {one: np.hstack([rows, 1e4 * rng.random((12, 1))]) for one, rows in told.items()}
    assert classify(task, described, has_units=True)["nearest", "second"].mean() > 0.95
    assert classify(task, described)["nearest", "second"].mean() < 0.8


def test_parts_keep_recordings_whole_and_classes_spread() -> None:
    names = ["a"] * 11 + ["b"] * 5 + ["c"] * 2 + ["d"] * 3
    task = task_of(names)
    part = folds(task, 1)
    assert set(part) == set(range(5)) and np.bincount(part).min() >= 4
    for name, n in (("a", 5), ("b", 5), ("c", 2), ("d", 3)):
        assert len(set(part[task.classes == name])) == n
    assert np.array_equal(part, folds(task, 1)) and not np.array_equal(part, folds(task, 2))
    excerpts = [(f"r{k}", condition) for k in range(4) for condition in ("clean", "echo")]
    part = folds(Task("", excerpts, np.array(["clean", "echo"] * 4)), 1)
    assert np.array_equal(part[::2], part[1::2]) and len(set(part)) == 4


def test_every_recording_counts_once_and_every_class_alike() -> None:
    task = task_of(["a"] * 8 + ["b"] * 2)
    scores = np.array([1.0] * 8 + [0.0, 0.5])
    assert recalls(task, scores) == {"a": 1.0, "b": 0.25}
    again = resampled(task, scores, seed=1)
    assert set(np.round(again, 6)) == {0.5, 0.625, 0.75}  # b's recall is 0, 0.25 or 0.5
    assert np.array_equal(again, resampled(task, scores, seed=1))
    other = Task("elsewhere", task.excerpts, task.classes)  # its recordings are drawn by themselves
    assert not np.array_equal(again, resampled(other, scores, seed=1))
    # excerpts of one recording are drawn together
    excerpts = [(f"r{k}", condition) for k in range(2) for condition in ("clean", "echo")]
    both = Task("", excerpts, np.array(["clean", "echo"] * 2))
    assert set(resampled(both, np.array([1.0, 1.0, 0.0, 0.0]), seed=1)) == {0.0, 0.5, 1.0}


def recording(name: str, kind: str = "speech") -> Recording:
    return Recording(name, Path(name), 10.0, kind)


def test_speakers_are_told_apart_within_a_collection() -> None:
    speakers = {
        "x": ["Ann", "Ann", "Bob", "Bob", "Cy"],  # Cy has but one recording
        "y": ["Dan", "Dan", "Eve"],
        "z": ["Ann", "Ann", "Flo", "Flo", "Flo"],
    }
    names = {f"{place}{k}": one for place, found in speakers.items() for k, one in enumerate(found)}
    tracks = [*map(recording, names), recording("m0", "music"), recording("m1", "music")]
    artists = names | {"m0": "Ann", "m1": "Ann"}
    sources = {track.id: track.id[0] for track in tracks if track.id != "y2"}
    pool = Pool("here", tracks, tracks, Materials(), artists, sources)
    excerpts = [(track.id, condition) for track in tracks for condition in (WHOLE, "clean", "echo")]

    found = attribute_of("speaker", pool, excerpts)
    assert found is not None and [task.name for task in found.tasks] == ["x", "z"]
    assert found.tasks[0].excerpts == [(f"x{k}", WHOLE) for k in range(4)]
    assert found.tasks[1].names == ["Ann", "Flo"] and found.chance == 0.5
    assert found.largest == pytest.approx((0.5 + 0.6) / 2)
    assert found.size == "4 classes, 9 recordings, 2 collections"

    for name, sizes in (
        ("kind", {"music": 2, "speech": 13}),
        ("source", {"m": 2, "x": 5, "y": 2, "z": 5}),
        ("transformation", {"clean": 15, "echo": 15}),
    ):
        found = attribute_of(name, pool, excerpts)
        assert found is not None and len(found.tasks) == 1
        [task] = found.tasks
        assert {one: int((task.classes == one).sum()) for one in task.names} == sizes
        assert found.chance == 1 / len(sizes)
    assert attribute_of("source", Pool("here", tracks, tracks, Materials()), excerpts) is None
    assert attribute_of("kind", pool, [("m0", WHOLE), ("m1", WHOLE), ("x0", WHOLE)]) is None


def test_results_are_means_over_collections() -> None:
    tasks = [
        Task(place, [(f"{place}{k}", WHOLE) for k in range(6)], np.array(["a", "b"] * 3)) for place in "xy"
    ]
    described = {**bits_of(tasks[0], 0.9), **bits_of(tasks[1], 0.0, seed=1)}
    asked = Attribute("speaker", tasks)
    one = Representation("bits | of 64", ["bits"], lambda: lambda samples: np.empty((0, 64), np.float32))
    found = list(results(asked, one, described))
    assert [(result.classifier, result.asked) for result in found] == WAYS
    for result in found:
        assert set(result.recalls) == {"x", "y"} and set(result.recalls["x"]) == {"a", "b"}
        shares = [share for of_task in result.recalls.values() for share in of_task.values()]
        assert result.balanced_accuracy == pytest.approx(np.mean(shares))
        assert result.interval[0] <= result.balanced_accuracy <= result.interval[1]
    made = table(asked, found)
    lines = made.markdown().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["chance", r"bits \| of 64".split("|")[0]]
    assert lines[2].count(" 50.0 ") == len(WAYS) and "[" in lines[3]
    assert made.title == "Speaker: 4 classes, 12 recordings, 2 collections"
    assert "largest class, which has 50 % of the recordings (means over the collections)" in made.note


# -- audio -> vectors --------------------------------------------------------------------------------------------------


def test_samaf_gives_its_bits() -> None:
    samples = np.concatenate([tune(3.0), np.zeros(2 * RATE, np.float32)])
    for bits in (64, 256):
        found = of_samaf(bits).open()(samples)
        known = Encoder(bits=bits).encode(samples)
        assert found.dtype == np.int8 and set(found.ravel().tolist()) == {-1, 1}
        assert np.array_equal(pack(found > 0), known.hashes[known.valid])
        assert 3 <= len(found) < len(known.hashes)  # silence has none
        assert of_samaf(bits).open()(samples[: RATE // 2]).shape == (0, bits)
    assert of_samaf(64).key != of_samaf(128).key and of_samaf(64).key.startswith("samaf-64-bits-")


def test_mfcc_gives_means_of_seconds() -> None:
    features = pytest.importorskip("python_speech_features")
    samples = np.concatenate([tune(2.0), np.zeros(RATE, np.float32), tune(1.6, seed=1)])
    found = of_mfcc().open()(samples)
    assert found.shape == (3, 13)
    frames = features.mfcc(samples, RATE)
    for rows, at in zip(found, (0, 1, 3), strict=True):
        assert np.allclose(rows, frames[100 * at : 100 * (at + 1)].mean(axis=0), atol=0.02)
    assert of_mfcc().open()(samples[:100]).shape == (0, 13)


def test_an_encoder_gives_a_vector_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not in_ci():
        pytest.importorskip("faiss", reason="FAISS is not installed: pip install 'samaf[bench]'")
    from baselines import contrastive
    from baselines.networks import NETWORK, WEIGHTS

    class Embedding:
        def of_windows(self, windows: Float32) -> Float32:
            return windows[:, :4000:1000]

    parameters = contrastive.ContrastiveParameters("lstm", weights=str(tmp_path))
    with pytest.raises(ModelError, match="no such network; train it"):
        of_contrastive(parameters)
    parameters.folder.mkdir()
    for name in (NETWORK, WEIGHTS):
        (parameters.folder / name).write_bytes(b"1")
    monkeypatch.setattr(contrastive, "embedding_of", lambda given: {parameters: Embedding()}[given])
    one = of_contrastive(parameters)
    assert one.label == "contrastive, lstm, 64 values, divided"
    found = one.open()(np.concatenate([tune(2.5), np.zeros(2 * RATE, np.float32)]))
    assert found.shape == (3, 4)  # a second and more of silence has none
    (parameters.folder / WEIGHTS).write_bytes(b"2")  # trained anew
    assert of_contrastive(parameters).key != one.key


def test_codes_of_an_autoencoder_have_four_seconds_and_one_begins_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss", reason="FAISS is not installed: pip install 'samaf[bench]'")
    from baselines import unet
    from baselines.networks import NETWORK, WEIGHTS

    def code(clips: Float32) -> tuple[Float32, np.ndarray]:
        return clips[:, :3], np.abs(clips).max(axis=1) > 0

    parameters = unet.UNetParameters(weights=str(tmp_path))
    with pytest.raises(ModelError, match="bench train unet"):
        of_unet(parameters)
    parameters.folder.mkdir()
    for name in (NETWORK, WEIGHTS):
        (parameters.folder / name).write_bytes(b"1")
    monkeypatch.setattr(unet, "code_of", lambda given: {parameters: code}[given])
    vectors = of_unet(parameters).open()
    assert vectors(np.concatenate([tune(2.0), np.zeros(6 * RATE, np.float32)])).shape == (2, 3)
    assert vectors(tune(3.5)).shape == (0, 3)


def loudness(label: str, opened: list[str]) -> Representation:
    """Stands for a system that hears how loud four parts of each second are; says when it is loaded."""

    def vectors(samples: Float32) -> Vectors:
        n = len(samples) // RATE
        found = np.abs(samples[: n * RATE]).reshape(n, 4, -1).mean(axis=2)
        return found[found.any(axis=1)].astype(np.float32)

    def load() -> Callable[[Float32], Vectors]:
        opened.append(label)
        return vectors

    return Representation(label, [label], load)


def test_what_is_described_is_kept(tmp_path: Path) -> None:
    sounds = {"long": tune(8.0), "short": tune(4.0), "quiet": np.zeros(8 * RATE, np.float32)}
    tracks = [
        Recording(name, write(tmp_path / f"{name}.wav", samples), len(samples) / RATE, "music")
        for name, samples in sounds.items()
    ]
    gone = Recording("gone", tmp_path / "gone.wav", 8.0, "music")
    gone.path.write_bytes(b"no audio")
    pool = Pool("here", [*tracks, gone], [], Materials())
    plan = Plan([parse("clean"), parse("level-20"), parse("speed0.8")], longest_s=6.0, clip_s=5.0)
    told, opened = list[str](), list[str]()
    listener = Listener(pool, plan, tmp_path / "vectors", ClipCache(tmp_path / "clips"), told.append)

    one = loudness("one", opened)
    [described] = listener.described([one], quiet)
    conditions = [WHOLE, "clean", "level-20", "speed0.8"]
    assert set(described) == {("short", WHOLE), *(("long", name) for name in conditions)}
    assert described["long", WHOLE].shape == (6, 4) and described["long", "clean"].shape == (5, 4)
    assert np.allclose(described["long", "level-20"], described["long", "clean"] / 10, atol=1e-3)
    assert ["quiet.wav: has no content" in told[0], "gone.wav" in told[1]] == [True, True] and len(told) == 2

    again, other = listener.described([one, loudness("two", opened)], quiet)
    assert opened == ["one", "two"]  # the first is not loaded again
    assert all(np.array_equal(again[excerpt], rows) for excerpt, rows in described.items())
    assert set(other) == set(described)
    [file] = (tmp_path / "vectors" / one.key).glob(f"{listener._key(tracks[1])}*")
    file.write_bytes(file.read_bytes()[:-9])  # damaged
    [mended] = listener.described([one], quiet)
    assert np.array_equal(mended["short", WHOLE], described["short", WHOLE])
    write(tracks[1].path, tune(4.0, seed=5))  # the recording is another one
    [changed] = listener.described([one], quiet)
    assert not np.array_equal(changed["short", WHOLE], described["short", WHOLE])


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers, who are bursts of noise, and tunes, of two collections; a file that is no audio."""
    folder = tmp_path_factory.mktemp("audio")
    rows = []
    for k in range(8):
        kind, make = ("speech", bursts) if k % 2 else ("music", tune)
        write(folder / f"{k}.wav", make(6.0, seed=k))
        rows.append([f"{k}.wav", kind, "dev" if k < 8 else "check", f"voice {k // 4}", f"{kind} {k // 6}"])
    (folder / "damaged.wav").write_bytes(b"no audio")
    rows.append(["damaged.wav", "speech", "dev", "voice 1", "speech 0"])
    with open(folder / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "kind", "split", "speaker_or_artist", "source_repo"], *rows])
    return folder / "manifest.csv"


def test_the_command(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "results" / "attributes"
    command = ["attributes", "--manifest", str(manifest), "--out", str(out), "--bits", "64,128"]
    command += ["--conditions", "clean,lowpass500,level-20"]
    assert main(command) == DONE
    told = capsys.readouterr()
    assert (
        "left out: " in told.err and "damaged.wav" in told.err and "recordings described: 8 done" in told.err
    )
    assert "speaker: left out: there are no two classes of two recordings each" in told.err
    assert (out / "study.md").read_text() in told.out
    for title in ("Kind: 2 classes, 8 recordings", "Transformation: 3 classes, 8 recordings"):
        assert f"## {title}\n" in told.out
    for label in ("chance", "samaf, 64 bits", "samaf, 128 bits", "means of MFCC"):
        assert told.out.count(f"| {label} ") == 3

    kind, source, transformation = json.loads((out / "attributes.json").read_text())
    assert [kind["attribute"], source["attribute"]] == ["kind", "source"]
    assert source["tasks"] == [{"name": "", "classes": {"music 0": 3, "speech 0": 3}}]
    assert transformation["chance"] == pytest.approx(1 / 3) == transformation["largest"]
    assert len(kind["results"]) == 3 * len(WAYS)
    for result in kind["results"]:
        assert 0 <= result["interval"][0] <= result["balanced_accuracy"] <= result["interval"][1] <= 1
    by_ear = [one for one in kind["results"] if one["classifier"] == "linear" and one["asked"] == "vote"]
    assert all(one["balanced_accuracy"] > 0.8 for one in by_ear)

    files = sorted(out.rglob("*.npz"))
    before = [file.stat().st_mtime_ns for file in files]
    assert len(files) == 3 * 8 and main(command) == DONE
    assert capsys.readouterr().out == told.out
    assert [file.stat().st_mtime_ns for file in files] == before


def test_what_is_left_out_is_named(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["attributes", "--manifest", str(manifest), "--out", str(tmp_path / "a"), "--bits", "64"]
    for options, told in (
        (
            ["--split", "none"],
            "manifest.csv, split none: has no usable recording of music, speech; check --split",
        ),
        (
            ["--attributes", "speaker"],
            "manifest.csv, split dev: too few recordings to tell anything; check --split",
        ),
        (["--conditions", "noise5,loud"], "loud: no such condition; there are clean,"),
        (["--model", str(tmp_path / "none.npz")], "none.npz"),
        (
            ["--baseline", "contrastive", "--weights", str(tmp_path)],
            "contrastive-resnet-64-divided: no such network; train it: bench train contrastive --encoder resnet",
        ),
    ):
        if "--baseline" in options and not in_ci():
            pytest.importorskip("faiss", reason="FAISS is not installed: pip install 'samaf[bench]'")
        assert main([*command, *options]) == FAILED, options
        out, err = capsys.readouterr()
        assert not out and "Traceback" not in err
        assert told in err.splitlines()[-1]
    assert not (tmp_path / "a" / "attributes.json").exists()


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (
            ("--attributes", "mood"),
            "no attribute is called 'mood'; there are speaker, kind, source, transformation",
        ),
        (("--baseline", "dejavu"), f"choose from {', '.join(EMBEDDINGS)}"),
    ],
)
def test_what_there_is_not(option: Sequence[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["attributes", "--manifest", "m.csv", *option])
    err = capsys.readouterr().err
    assert ended.value.code == FAILED and err.count("\n") == 1
    assert told in err.replace("'", "") or told in err


def test_all_transformations_are_conditions() -> None:
    names = [parse(name).name for name in attributes.TRANSFORMATIONS]
    assert len(set(names)) == 16 and "clean" in names
    assert not any(parse(name).draws for name in names)
    assert all(math.isclose(abs(math.log(parse(name).factor)), 0, abs_tol=0.11) for name in names)
