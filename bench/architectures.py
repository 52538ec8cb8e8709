"""Encoders against each other when all else is equal: samaf's recipe, the time of training, the compute of a window.

Compared with each other as papers have them, two systems differ in audio, distortions, loss and patience as much as
in their networks. Here each encoder stands in the place of samaf's LSTM, with about as many multiplications a window;
training has samaf's renderings, twins and composite loss, and as many steps as take the same time; codes are
calibrated, stored and searched as samaf's are. Clarity is left out for all: it is read from an LSTM's state::

    python bench/architectures.py --manifest audio/manifest.csv --encoder resnet --minutes 20

Trained on split ``train``, calibrated on ``dev``, tried on ``check``. What is done is kept in ``--work``, and the
same command goes on. Audio is rendered first, which takes its own time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"OPENBLAS_NUM_THREADS": "1"}
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs in a checkout without installation

import numpy as np
import soundfile
from numpy.typing import NDArray

from baselines.encoders import ENCODERS
from bench import clips
from bench.clip_cache import ClipCache
from bench.clips import Plan
from bench.corpus import TRACK_KINDS, Corpus, paths_of, read_manifest, read_rows
from bench.metrics import Rate
from bench.results import Query
from samaf.atomic import atomic_write
from samaf.encoder import Encoder
from samaf.errors import AudioError, SamafError
from samaf.features import FRONT_ENDS, WINDOW_FRAMES
from samaf.fingerprint import Fingerprint
from samaf.index import Index, TrackInfo
from samaf.model.augment import Sources
from samaf.model.calibrate import calibration_of
from samaf.model.presets import PRESETS, Preset
from samaf.search import Searcher
from samaf.settings import QUERY_HOP_S, REFERENCE_HOP_S, processors
from samaf.verdict import CalibratedModel, Limits

LSTM = "samaf"
"""The name of samaf's own encoder, an LSTM."""
CONDITIONS = ("clean", "noise5", "noise0", "noise-5", "reverb", "mp3_32", "speed1.05", "rerecord")
LENGTHS_S = (1.0, 2.0, 5.0)
TIMED_STEPS = 12
PLAN = "plan.json"
"""In an encoder's folder: how many steps it may take."""
CALIBRATION = "calibration.npz"
"""There too: what its codes are worth."""

Float32 = NDArray[np.float32]


class NetworkEncoder(Encoder):
    """samaf's encoder with another network in it.

    Parameters
    ----------
    network
        Normalised windows (n, steps, inputs) to pre-sign activations (n, bits).
    bits, model_id
        Of its codes, and a name of its own.
    """

    def __init__(self, network: Callable[[Float32], Float32], bits: int, model_id: str) -> None:
        super().__init__(bits=bits)
        self._network: Any = _Network(network, self._network.n_inputs)
        self.model_id = model_id


@dataclass(frozen=True)
class _Network:
    run: Callable[[Float32], Float32]
    n_inputs: int

    def __call__(self, windows: Float32) -> Float32:
        return self.run(windows)


def body(name: str, preset: Preset, wanted_macs: int) -> Any:
    """An encoder of about so many multiplications a window: a Keras model (steps, inputs) -> vector."""
    import keras

    from baselines.encoders.networks import BODIES, Attention, Shape, macs

    bands = FRONT_ENDS[preset.front_end][0].n_values

    def made(width: float) -> Any:
        windows = keras.Input((preset.n_steps, preset.n_inputs))
        x = keras.layers.Reshape((WINDOW_FRAMES, bands))(windows)
        x = keras.layers.Permute((2, 1))(x)
        if name.startswith("attention-") or name == "resnet":
            x = Attention()(x)
        shape = Shape(name, values=1, bands=bands, frames=WINDOW_FRAMES, width=width)
        return keras.Model(windows, BODIES[name.removeprefix("attention-")](x, shape))

    low, high = 1 / 64, 8.0
    for _ in range(12):  # compute grows with the width
        middle = (low * high) ** 0.5
        low, high = (middle, high) if macs(made(middle)) < wanted_macs else (low, middle)
    return made(low)


def lstm_macs(preset: Preset) -> int:
    """Multiplications of samaf's own encoder for a window."""
    return preset.body.macs(preset.n_steps)


def model_of(name: str, preset: Preset) -> Any:
    """A new autoencoder with the encoder of a name."""
    import keras

    from samaf.model.network import Autoencoder

    keras.utils.set_random_seed(0)
    return Autoencoder(preset, None if name == LSTM else body(name, preset, lstm_macs(preset)))


def plan(names: Sequence[str], corpus: Any, preset: Preset, work: Path, minutes: float) -> None:
    """Find out how many steps each may take in the same time, and write that down in its folder.

    The steps are timed in turns, so that whatever else the machine does meanwhile slows all of them alike. What is
    written down already stays.
    """
    import keras

    from baselines.encoders.networks import macs
    from samaf.model.fit import STEPS_PER_EPOCH, Batches
    from samaf.model.twins import Twins

    new = [name for name in names if not (work / name / PLAN).exists()]
    models = {name: model_of(name, preset) for name in new}
    batches = Batches(Twins(corpus, corpus.split(0)[0]), preset, 0, 0)
    for model in models.values():
        model.build(None)
        model.compile(optimizer=keras.optimizers.Adam(preset.learning_rate))
        model.train_on_batch(*batches[0])
    times: dict[str, list[float]] = {name: [] for name in new}
    for k in range(TIMED_STEPS):
        batch = batches[k]
        for name, model in models.items():
            began = time.perf_counter()
            model.train_on_batch(*batch)
            times[name].append(time.perf_counter() - began)
    for name in new:
        step_s = float(np.median(times[name]))
        steps = max(1, round(60.0 * minutes / step_s / STEPS_PER_EPOCH)) * STEPS_PER_EPOCH
        compute = lstm_macs(preset) if name == LSTM else macs(models[name].encoder)
        (work / name).mkdir(parents=True, exist_ok=True)
        with atomic_write(work / name / PLAN) as file:
            file.write(json.dumps({"steps": steps, "step_s": step_s, "macs": compute}).encode())


def trained(
    name: str, corpus: Any, preset: Preset, folder: Path, say: Callable[[str], None]
) -> tuple[Any, dict[str, Any]]:
    """The network of a name, trained as planned, and what is known of its training."""
    from samaf.model.fit import fit

    about = json.loads((folder / PLAN).read_text())
    model = model_of(name, preset.with_options(steps=about["steps"]))
    began = time.monotonic()

    def epoch_done(epoch: int, epochs: int, measures: dict[str, float]) -> None:
        told = "  ".join(f"{key} {measures[key]:.4f}" for key in ("loss", "val_ber", "val_top1"))
        say(f"{name}: epoch {epoch}/{epochs}  {time.monotonic() - began:.0f} s  {told}")

    history = fit(model, corpus, folder, epoch_done=epoch_done)
    return model, {**about, "val_top1": history[-1]["val_top1"], "val_ber": history[-1]["val_ber"]}


def activations_of(model: Any) -> Callable[[Float32], Float32]:
    """What a trained network gives before the sign."""
    import tensorflow as tf

    steps, inputs = model.preset.n_steps, model.preset.n_inputs

    @tf.function(input_signature=[tf.TensorSpec((None, steps, inputs), tf.float32)], autograph=False)
    def run(windows: Any) -> Any:
        return model.code(model.encoder(windows, training=False))

    return lambda windows: run(windows).numpy()


def rates(
    encoder: Encoder,
    calibration: dict[str, NDArray],
    lengths: Sequence[int],
    corpus: Corpus,
    queries: Sequence[Query],
    out: Path,
) -> Iterator[tuple[int, Query, bool]]:
    """For each code length, each query, and whether the best candidate for it is right."""

    def asked(query: Query) -> Fingerprint | None:
        samples, _ = soundfile.read(out / query.audio, dtype="float32")
        try:
            return encoder.encode_query(samples)
        except AudioError:
            return None

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(processors()) as pool:
        tracks = [TrackInfo(track.id, title=track.id) for track in corpus.library]
        stored = list(pool.map(lambda track: encoder.encode(track.path), corpus.library))
        clips = list(pool.map(asked, queries))
        for bits in lengths:
            index = Index.create(
                Path(folder) / str(bits),
                model_id=encoder.model_id,
                bits=bits,
                hop_s=REFERENCE_HOP_S,
                query_hop_s=QUERY_HOP_S,
            )
            index.add([(track, print_.truncated(bits)) for track, print_ in zip(tracks, stored, strict=True)])
            searcher = Searcher(index, CalibratedModel(encoder.model_id, calibration))
            find = partial(_best, searcher, bits)
            for query, found in zip(queries, pool.map(find, clips), strict=True):
                yield bits, query, found == query.track
            index.close()


def _best(searcher: Searcher, bits: int, clip: Fingerprint | None) -> str | None:
    """The best candidate for a clip, however unlikely."""
    if clip is None:
        return None
    found = searcher.search(clip.truncated(bits), limits=Limits(min_probability=0.0, top=1))
    return found[0].title if found else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--manifest", type=Path, required=True, help="a CSV with columns path, kind and split"
    )
    parser.add_argument(
        "--encoder", action="append", choices=ENCODERS, metavar="NAME", help="another encoder (resnet)"
    )
    parser.add_argument("--minutes", type=float, default=20.0, metavar="X", help="training of each (20)")
    parser.add_argument(
        "--renderings", type=int, metavar="N", help="distorted copies of the training audio (the preset's)"
    )
    parser.add_argument("--bits", default="64,128,256", metavar="N,N", help="code lengths (64,128,256)")
    parser.add_argument("--per-cell", type=int, default=40, metavar="N", help="clips of each cell (40)")
    parser.add_argument(
        "--queries", type=int, default=60, metavar="N", help="clips a cell of the calibration (60)"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("bench-results/architectures"), metavar="DIR", help="what is kept"
    )
    return parser.parse_args()


def main() -> int:
    """Train, calibrate, try, print."""
    args = _arguments()
    try:
        for line in _compared(
            args, lambda text: print(f"architectures: {text}", file=sys.stderr, flush=True)
        ):
            print(line, flush=True)
    except SamafError as error:
        print(f"architectures: {error}", file=sys.stderr)
        return 2
    return 0


def _compared(args: argparse.Namespace, say: Callable[[str], None]) -> Iterator[str]:
    from samaf.model.corpus import Corpus as Rendered

    rows = read_rows(args.manifest)

    of = partial(paths_of, rows, args.manifest)
    preset = PRESETS["samaf"].with_options(renderings=args.renderings)
    lengths = [int(bits) for bits in args.bits.split(",")]
    training = of("train", *TRACK_KINDS)
    sources = Sources(of("train", "noise"), of("train", "ir"), training)
    rendered = Rendered.render(
        training,
        sources,
        preset,
        args.work / "rendered",
        progress=lambda done, n, note: say(note) if note else None,
    )
    corpus = read_manifest(args.manifest, args.work, split="check", library=("train", "dev"))
    wanted = Plan(CONDITIONS, LENGTHS_S, args.per_cell)
    cells, _ = clips.cells(corpus, wanted)
    work = clips.Work(cells, wanted, corpus.materials, ClipCache(args.work / "cache"))
    queries = [
        query for query in clips.make(work, jobs=processors()) if isinstance(query, Query) and query.track
    ]
    compared = [LSTM, *(args.encoder or ["resnet"])]
    plan(compared, rendered, preset, args.work, args.minutes)
    for name in compared:
        folder = args.work / name
        file = folder / "results.json"
        if not file.exists():
            model, about = trained(name, rendered, preset, folder, say)
            encoder = NetworkEncoder(activations_of(model), preset.bits[-1], f"{sum(name.encode()):064x}")
            calibration = folder / CALIBRATION
            if not calibration.exists():
                say(f"{name}: calibrating")
                found = calibration_of(
                    encoder,
                    preset.bits,
                    [of("dev", kind) for kind in TRACK_KINDS],
                    training,
                    sources=Sources(of("train", "noise"), of("train", "ir"), of("dev", *TRACK_KINDS)),
                    queries=args.queries,
                )
                with atomic_write(calibration) as kept:
                    np.savez(kept, **found)
            with np.load(calibration) as arrays:
                known = dict(arrays)
            hits: dict[str, list[int]] = {}
            for bits, query, right in rates(encoder, known, lengths, corpus, queries, args.work):
                for condition in (query.condition, "all"):
                    cell = hits.setdefault(f"{bits}/{query.kind}/{query.length_s:g}/{condition}", [0, 0])
                    cell[0] += right
                    cell[1] += 1
            with atomic_write(file) as out:
                out.write(json.dumps({**about, "hits": hits}).encode())
        yield from _table(name, json.loads(file.read_text()), lengths)


def _table(name: str, results: dict[str, Any], lengths: Sequence[int]) -> Iterator[str]:
    yield (
        f"\n{name}: {results['macs'] / 1e6:.1f} M multiplications a window, {results['steps']:,} steps of "
        f"{1000 * results['step_s']:.0f} ms; of held-out twins {results['val_top1']:.1%} are told, at a BER of "
        f"{results['val_ber']:.3f}"
    )
    yield "| best candidate right, % | " + " | ".join(["all", *CONDITIONS]) + " |"
    yield "|---|" + "---|" * (1 + len(CONDITIONS))
    for bits in lengths:
        for kind in TRACK_KINDS:
            for length_s in LENGTHS_S:
                cells = [
                    results["hits"].get(f"{bits}/{kind}/{length_s:g}/{of}") for of in ("all", *CONDITIONS)
                ]
                told = ["-" if cell is None else f"{100 * Rate(*cell).value:.1f}" for cell in cells]
                yield f"| {bits} bits, {kind}, {length_s:g} s | " + " | ".join(told) + " |"


if __name__ == "__main__":
    sys.exit(main())
