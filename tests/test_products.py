"""Products of matrices stay on the thread that calls, also for those who have imported numpy already."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from samaf import features
from samaf.products import SMALL, product

# Prints the ticks of the processor that other threads take for some work, and those of all.
TICKS = """
import os, sys, numpy
from pathlib import Path

def ticks():
    stat = {name: Path(f"/proc/self/task/{name}/stat").read_text() for name in os.listdir("/proc/self/task")}
    return {name: int(text.rsplit(")", 1)[1].split()[11]) for name, text in stat.items()}

from samaf.background import Background, RUN_ROWS
from samaf.features import Mfcc, frames_of, log_mel

rng = numpy.random.default_rng(0)
samples = rng.standard_normal(16000 * 60).astype(numpy.float32)
rows = rng.standard_normal((100, 128)).astype(numpy.float32)
background = Background(rng.integers(0, 2**63, (200, RUN_ROWS, 2), numpy.uint64), 128, 0.5)

def work():
    log_mel(samples)
    frames_of(Mfcc(), samples)
    for n in (1, 12, 100):
        background.of_stretch(rows[:n])
        background.of_rows(rows[:n])

work()
before = ticks()
for _ in range(5):
    work()
taken = {name: n - before.get(name, 0) for name, n in ticks().items()}
print(sum(n for name, n in taken.items() if name != str(os.getpid())), sum(taken.values()))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells what each thread does")
def test_no_other_thread_works() -> None:
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "4"}
    done = subprocess.run([sys.executable, "-c", TICKS], env=env, capture_output=True, text=True, check=True)
    others, all_of_them = map(int, done.stdout.split())
    assert others <= 0.05 * all_of_them + 2


@pytest.mark.parametrize("shape", [(0, 128, 9), (1, 128, 500), (33, 64, 700), (70, 256, 130), (2, 3, 1)])
def test_the_product_is_numpy_s(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(size).astype(np.float32) for size in ((m, k), (k, n)))
    made = product(a, b)
    assert made.dtype == np.float32 and np.allclose(made, a @ b, atol=1e-4)


def test_filters_are_applied_in_small_products() -> None:
    for tables, bins, n in ((features._mel_tables()[1], 513, 64), (features._mfcc_tables()[0], 257, 26)):
        power = np.random.default_rng(0).random((features._CHUNK, bins)).astype(np.float32)
        whole = np.zeros((bins, n))
        for part, group, filters in tables._groups:
            assert filters.size <= SMALL  # a product for each spectrum
            whole[part, group] = filters
        out = np.empty((len(power), n), np.float32)
        tables.apply(power, out)
        assert np.allclose(out, power @ whole, rtol=1e-5)
