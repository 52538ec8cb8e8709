"""Processes of one run: they end with the one that started them, and leave interrupts to it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.process import BaseProcess

CONTEXT = multiprocessing.get_context("spawn")
"""New interpreters: a fork would share what threads and LMDB hold."""


def follow_parent() -> None:
    """End this process when its parent has gone, however that went: who starts a run again must find it alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
