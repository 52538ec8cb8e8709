"""The processes of a service: workers that answer, one writer, and this one, which starts and ends them.

All workers accept from one listening socket. One that dies is replaced; what it worked on is lost. SIGTERM and Ctrl-C
end the service: requests that have begun are answered, then the change in progress is ended.
"""

from __future__ import annotations

import multiprocessing.connection
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import FrameType

from samaf.errors import SamafError, shown
from samaf.processes import CONTEXT, follow_parent
from samaf.serve.options import Options

GRACE_S = 30.0
"""How long requests that have begun are waited for."""
BACKLOG = 1024
SOONEST_S = 2.0
"""A process that dies sooner than this after its start is replaced only after as long."""


@dataclass
class _Child:
    """A process, and what starts another in its place."""

    start: Callable[[], tuple[BaseProcess, Connection | None]]
    worker: int | None  # None: the writer
    process: BaseProcess
    says: Connection | None
    began_s: float
    is_ready: bool = False


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises
    ------
    SamafError
    """
    made = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        if made is not None:
            made.close()
        why = getattr(error, "strerror", None) or error
        raise SamafError(f"{shown(host)} port {port}: cannot be listened on ({why}); choose others") from None
    return made


def check_tls(certificate: str, key: str) -> None:
    """Refuse files of which no secure connection can be made.

    Raises
    ------
    SamafError
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, lambda: "")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SamafError(
            f"{shown(certificate)} and {shown(key)}: are no certificate and its key ({why}); name both as PEM files"
        ) from None


class Supervisor:
    """Starts the processes of a service, keeps them running, and ends them.

    Parameters
    ----------
    options
    listener
        Where requests come in.
    n_workers
    started
        Called once, when all workers are ready.
    note
        Called with a line about something wrong.
    """

    def __init__(
        self,
        options: Options,
        listener: socket.socket,
        n_workers: int,
        started: Callable[[], None],
        note: Callable[[str], None],
    ) -> None:
        self._options, self._listener, self._n_workers = options, listener, n_workers
        self._started, self._note = started, note
        self._children: list[_Child] = []
        self._is_stopped = False
        self._failure: SamafError | None = None

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises
        ------
        SamafError
            The library cannot be opened.
        """
        from samaf.serve.bounds import Slots

        for folder in (self._options.spool, self._options.metrics):
            folder.mkdir()
        Slots.make(self._options.slots, self._options.bounds)
        self._slots = Slots(self._options.slots, self._options.bounds)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = os.fspath(self._options.metrics)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            if self._options.writable:
                self._add(self._writer, None)
            for worker in range(self._n_workers):
                self._add(lambda worker=worker: self._worker(worker), worker)  # type: ignore[misc]
            self._watch()
        finally:
            self._end()
        if self._failure is not None:
            raise self._failure

    def _stop(self, number: int, frame: FrameType | None) -> None:
        for child in self._children:
            if self._is_stopped:  # a second time: at once
                child.process.kill()
            elif child.worker is not None:
                child.process.terminate()
        self._is_stopped = True

    def _worker(self, worker: int) -> tuple[BaseProcess, Connection]:
        says, told = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(
            target=run_worker,
            args=(self._options, self._listener, worker, told),
            name=f"samaf-worker-{worker}",
        )
        process.start()
        told.close()
        return process, says

    def _writer(self) -> tuple[BaseProcess, None]:
        path = self._options.writer
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as door:
            try:
                door.bind(os.fspath(path))
            except OSError:
                raise SamafError(
                    f"{shown(path)}: is too long for a socket; set $TMPDIR to a shorter one"
                ) from None
            door.listen(BACKLOG)
            process = CONTEXT.Process(target=run_writer, args=(self._options, door), name="samaf-writer")
            process.start()
        return process, None

    def _add(self, start: Callable[[], tuple[BaseProcess, Connection | None]], worker: int | None) -> None:
        if not self._is_stopped:
            self._children.append(_Child(start, worker, *start(), time.monotonic()))

    def _watch(self) -> None:
        """Wait until the end is asked for; hear what workers say, and replace those that die."""
        is_started = False
        while not self._is_stopped:
            says = {child.says: child for child in self._children if child.says is not None}
            ends = {child.process.sentinel: child for child in self._children}
            for one in multiprocessing.connection.wait([*says, *ends], timeout=0.5):
                if one in says:
                    self._hear(says[one])  # type: ignore[index]
                elif ends[one].says is None:  # type: ignore[index]  # else it may still be heard
                    self._replace(ends[one])  # type: ignore[index]
            workers = [child for child in self._children if child.worker is not None]
            if (
                not is_started
                and len(workers) == self._n_workers
                and all(child.is_ready for child in workers)
            ):
                is_started = True
                self._started()

    def _hear(self, child: _Child) -> None:
        assert child.says is not None
        try:
            failure = child.says.recv()
        except EOFError:
            child.says = None
            return
        child.is_ready = failure is None
        if failure is not None and not self._is_stopped:
            self._failure, self._is_stopped = failure, True

    def _replace(self, child: _Child) -> None:
        self._children.remove(child)
        child.process.join()
        if self._is_stopped:
            return
        what = "the writer" if child.worker is None else f"worker {child.worker}"
        self._note(f"{what} ended with status {child.process.exitcode}; another takes its place")
        if child.worker is not None:
            self._slots.free(child.worker)
        time.sleep(max(0.0, child.began_s + SOONEST_S - time.monotonic()))
        self._add(child.start, child.worker)

    def _end(self) -> None:
        """End the workers, then the writer."""
        self._is_stopped = True
        for of_workers in (True, False):
            children = [child for child in self._children if (child.worker is not None) == of_workers]
            for child in children:
                child.process.terminate()
            until = time.monotonic() + GRACE_S + 5.0
            for child in children:
                child.process.join(max(0.0, until - time.monotonic()))
                if child.process.is_alive():
                    child.process.kill()
                    child.process.join()


# -- in a worker -------------------------------------------------------------------------------------------------------


def run_worker(options: Options, listener: socket.socket, worker: int, parent: Connection) -> None:
    """Answer requests until SIGTERM; tells the parent None when it is ready, or why it will not be."""
    follow_parent()
    import logging

    import uvicorn

    from samaf.serve.app import create_app
    from samaf.serve.engine import Engine
    from samaf.serve.log import LogHandler
    from samaf.serve.protocol import HEAD_BYTES, KEEP_S, Protocol, Server

    logging.basicConfig(level=logging.WARNING, handlers=[LogHandler()])
    engine = Engine(options)
    config = uvicorn.Config(
        create_app(options, engine, worker),
        http=Protocol,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=1,  # connections that are accepted in one go: else one worker takes all of a burst
        timeout_keep_alive=KEEP_S,
        timeout_graceful_shutdown=round(GRACE_S),
        h11_max_incomplete_event_size=HEAD_BYTES,
        ssl_certfile=options.tls[0] if options.tls else None,
        ssl_keyfile=options.tls[1] if options.tls else None,
    )
    engine.start(lambda: parent.send(None), parent.send)
    Server(config, BACKLOG).run(sockets=[listener])
    engine.close()
    _leave()


def run_writer(options: Options, listener: socket.socket) -> None:
    """Change the index until SIGTERM."""
    follow_parent()
    from samaf.serve.jobs import WriterProcess

    WriterProcess(options, listener).run()
    _leave()


def _leave() -> None:
    """End this process without taking down the machine code of the kernels, which takes seconds."""
    sys.stderr.flush()
    os._exit(0)
