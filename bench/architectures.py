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


def trained(
    name: str, corpus: Any, preset: Preset, folder: Path, minutes: float, say: Callable[[str], None]
) -> tuple[Any, dict[str, Any]]:
    """The network of a name, trained for so long, and what is known of its training."""
    import keras

    from baselines.encoders.networks import macs
    from samaf.model.fit import STEPS_PER_EPOCH, Batches, fit
    from samaf.model.network import Autoencoder
    from samaf.model.twins import Twins

    keras.utils.set_random_seed(0)
    folder.mkdir(parents=True, exist_ok=True)

    def model_of(preset: Preset) -> Any:
        encoder = None if name == LSTM else body(name, preset, lstm_macs(preset))
        return Autoencoder(preset, encoder)

    plan = folder / "plan.json"
    if not plan.exists():
        model = model_of(preset)
        model.build(None)
        model.compile(optimizer=keras.optimizers.Adam(preset.learning_rate))
        batches = Batches(Twins(corpus, corpus.split(0)[0]), preset, 0, 0)
        model.train_on_batch(*batches[0])
        began = time.perf_counter()
        for k in range(TIMED_STEPS):
            model.train_on_batch(*batches[k])
        step_s = (time.perf_counter() - began) / TIMED_STEPS
        steps = max(1, round(60.0 * minutes / step_s / STEPS_PER_EPOCH)) * STEPS_PER_EPOCH
        compute = lstm_macs(preset) if name == LSTM else macs(model.encoder)
        with atomic_write(plan) as file:
            file.write(json.dumps({"steps": steps, "step_s": step_s, "macs": compute}).encode())
    about = json.loads(plan.read_text())
    preset = preset.with_options(steps=about["steps"])
    model = model_of(preset)
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

    @tf.function(input_signature=[tf.TensorSpec((None, steps, inputs), tf.float32)])
    def run(windows: Any) -> Any:
        return model.code(model.encoder(windows, training=False))

    return lambda windows: run(windows).numpy()


def rates(
    encoder: Encoder,
    calibration: dict[str, NDArray],
    bits: int,
    corpus: Corpus,
    queries: Sequence[Query],
    out: Path,
) -> Iterator[tuple[Query, bool]]:
    """Each query, and whether the best candidate for it is right."""
    jobs = processors()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        index = Index.create(
            Path(folder) / "index",
            model_id=encoder.model_id,
            bits=bits,
            hop_s=REFERENCE_HOP_S,
            query_hop_s=QUERY_HOP_S,
        )
        prints = pool.map(lambda track: encoder.encode(track.path).truncated(bits), corpus.library)
        index.add(
            [(TrackInfo(track.id), print_) for track, print_ in zip(corpus.library, prints, strict=True)]
        )
        searcher = Searcher(index, CalibratedModel(encoder.model_id, calibration))

        def is_right(query: Query) -> bool:
            samples, _ = soundfile.read(out / query.audio, dtype="float32")
            try:
                found = searcher.search(
                    encoder.encode_query(samples).truncated(bits), limits=Limits(min_probability=0.0, top=1)
                )
            except AudioError:
                return False
            return bool(found) and found[0].path == query.track

        yield from zip(queries, pool.map(is_right, queries), strict=True)
        index.close()


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
    plan = Plan(CONDITIONS, LENGTHS_S, args.per_cell)
    cells, _ = clips.cells(corpus, plan)
    work = clips.Work(cells, plan, corpus.materials, ClipCache(args.work / "cache"))
    queries = [
        query for query in clips.make(work, jobs=processors()) if isinstance(query, Query) and query.track
    ]
    for name in [LSTM, *(args.encoder or ["resnet"])]:
        folder = args.work / name
        file = folder / "results.json"
        if not file.exists():
            model, about = trained(name, rendered, preset, folder, args.minutes, say)
            encoder = NetworkEncoder(activations_of(model), preset.bits[-1], f"{sum(name.encode()):064x}")
            known = calibration_of(
                encoder,
                preset.bits,
                [of("dev", kind) for kind in TRACK_KINDS],
                training,
                sources=Sources(of("train", "noise"), of("train", "ir"), of("dev", *TRACK_KINDS)),
                queries=args.queries,
            )
            hits: dict[str, list[int]] = {}
            for bits in lengths:
                for query, right in rates(encoder, known, bits, corpus, queries, args.work):
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
