"""A file is written wholly or not at all, and keeps what it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samaf.atomic import atomic_write
from samaf.encoder import Encoder
from samaf.errors import FingerprintError, ModelError, StoreError
from samaf.index import Index
from samaf.weights import Weights


def written(path: Path, data: bytes) -> None:
    with atomic_write(path) as file:
        file.write(data)


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    for data in (b"one", b"two"):
        written(tmp_path / "a", data)
        assert (tmp_path / "a").read_bytes() == data
    assert os.listdir(tmp_path) == ["a"]


def test_a_block_that_raises_changes_nothing(tmp_path: Path) -> None:
    written(tmp_path / "a", b"one")
    for path in (tmp_path / "a", tmp_path / "b"):
        with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
            file.write(b"half of")
            raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"one"


def test_it_is_on_the_disk_before_it_takes_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def noted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            calls.append(name)
            return real(*args)

        return call

    monkeypatch.setattr(os, "fsync", noted("fsync", os.fsync))
    monkeypatch.setattr(os, "replace", noted("replace", os.replace))
    written(tmp_path / "a", b"one")
    assert calls == ["fsync", "replace", "fsync"]  # the file, then the folder


def test_a_link_stays_and_rights_go_over(tmp_path: Path) -> None:
    written(tmp_path / "a", b"one")
    (tmp_path / "a").chmod(0o640)
    (tmp_path / "link").symlink_to("a")
    written(tmp_path / "link", b"two")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "a").read_bytes() == b"two"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_pipe_or_a_folder_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    tone = np.sin(np.arange(32000) * np.arange(32000) / 4e5).astype(np.float32)
    encoder = Encoder()
    with Index.create(
        tmp_path / "x.samafdb", model_id="0" * 64, bits=128, hop_s=1.0, query_hop_s=0.1
    ) as index:
        for place, why in ((pipe, "is no regular file"), (tmp_path, "is a directory")):
            with pytest.raises(StoreError, match=rf"^{place} cannot be written: {why}; [^\n]*$"):
                index.export_to(place)
            with pytest.raises(FingerprintError, match=rf"^{place}: cannot be written \({why}\); [^\n]*$"):
                encoder.encode(tone).save(place)
            with pytest.raises(ModelError, match=rf"^{place}: cannot be written \({why}\); [^\n]*$"):
                Weights.load().save(place)
    assert pipe.is_fifo()
