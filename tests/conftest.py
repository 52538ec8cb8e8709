"""Fixtures that several rooms share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)  # kernels compile at first use
settings.load_profile("fixed")

# As the command line does, before numpy is imported: on a busy machine, threads of small matrix products only wait.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

CHECKOUT = Path(__file__).resolve().parent.parent


def in_ci() -> bool:
    """Whether a missing program or library is a failure rather than a reason to skip."""
    return any(os.environ.get(name, "") not in ("", "0", "false") for name in ("CI", "SAMAF_CI"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The shared collection of real audio: $SAMAF_DATA, or ../shared/data beside the checkout."""
    folder = Path(os.environ.get("SAMAF_DATA") or CHECKOUT.parent / "shared" / "data")
    if not (folder / "manifest.csv").is_file():
        pytest.skip(f"no audio collection at {folder}; set SAMAF_DATA to one")
    return folder


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """`program("sox")` gives the path of a program; without it, it skips, and in CI it fails."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            reason = f"the program {name} is not installed"
            if in_ci():
                pytest.fail(reason)
            pytest.skip(reason)
        return path

    return find
