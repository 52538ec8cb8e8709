"""`samaf serve`: the library behind an HTTP API and a page."""

from __future__ import annotations

import argparse
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from samaf.cli.common import DONE, add_db, complain, count, positive
from samaf.errors import SamafError, shown

if TYPE_CHECKING:
    from samaf.serve.options import Options

HOST, PORT = "127.0.0.1", 8765

_EXAMPLES = """\
examples:
  samaf serve                                       this machine alone may search: http://127.0.0.1:8765
  samaf serve --db radio.samafdb --tokens tokens --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem
  samaf serve --tokens tokens --allow /music        files under /music may be added by name
  curl -F file=@recording.wav http://127.0.0.1:8765/v1/search

A file of tokens has lines of 'read TOKEN' or 'write TOKEN'; `openssl rand -hex 32` makes a token.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "serve",
        help="answer over HTTP, with a page (needs the extra serve)",
        description="Serve a library over HTTP: an API under /v1, described at /docs, and a page at /. Without tokens "
        "only this machine may search, and nobody may change anything.",
        epilog=_EXAMPLES,
    )
    add_db(parser)
    parser.add_argument("--model", metavar="FILE", help="the model of the index, if its file has moved")
    parser.add_argument("--host", default=HOST, help="address to listen on (default %(default)s)")
    parser.add_argument(
        "--port",
        type=_port,
        default=PORT,
        metavar="N",
        help="port to listen on; 0: any (default %(default)s)",
    )
    parser.add_argument(
        "--workers", type=count, metavar="N", help="processes that answer (default: one a processor)"
    )
    access = parser.add_argument_group("who may do what")
    access.add_argument(
        "--tokens", metavar="FILE", help="tokens of those who may read, and of those who may write"
    )
    access.add_argument(
        "--no-auth", action="store_true", help="everybody who reaches it may read and write, without a token"
    )
    access.add_argument(
        "--allow", action="append", default=[], metavar="DIR", help="folder whose files may be added by name"
    )
    access.add_argument(
        "--name",
        action="append",
        default=[],
        type=_name,
        metavar="HOST",
        help="name that the service goes by",
    )
    access.add_argument(
        "--origin",
        action="append",
        default=[],
        type=_origin,
        metavar="URL",
        help="site whose pages may call the service, such as https://music.example",
    )
    access.add_argument("--tls-cert", metavar="FILE", help="certificate of the service, PEM")
    access.add_argument("--tls-key", metavar="FILE", help="its key, PEM")
    bounds = parser.add_argument_group("bounds, all workers together")
    for option, default, what in (
        ("--max-megabytes", 256, "megabytes of an upload"),
        ("--max-requests", 64, "requests that are worked on at once"),
        ("--max-requests-per-client", 32, "those of one client, by its token or address"),
    ):
        bounds.add_argument(
            option, type=count, default=default, metavar="N", help=f"{what} (default {default})"
        )
    for option, default, what in (
        ("--max-clip", 600, "seconds of audio of a clip that is searched for"),
        ("--max-recording", 86_400, "seconds of audio of a recording that is added"),
        ("--max-decoding", 60, "seconds that a clip may take to decode, and a recording ten times as long"),
    ):
        bounds.add_argument(
            option, type=positive, default=float(default), metavar="S", help=f"{what} (default {default})"
        )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until the end is asked for."""
    needed = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise SamafError(
            f"the service needs {', '.join(missing)}; install what it needs with: pip install 'samaf[serve]'"
        )
    from tempfile import TemporaryDirectory

    from samaf.serve.access import check_reach
    from samaf.serve.workers import Supervisor, check_tls, listening
    from samaf.settings import processors

    if (args.tls_cert is None) != (args.tls_key is None):
        raise SamafError(
            "a certificate needs its key, and a key its certificate; name --tls-cert and --tls-key"
        )
    if args.tls_cert is not None:
        check_tls(args.tls_cert, args.tls_key)
    with TemporaryDirectory(prefix="samaf-serve-") as folder:
        options = _options(args, Path(folder))
        check_reach(args.host, options)
        if options.writable and not os.path.lexists(options.db):
            from samaf.library import Library

            Library(options.db, writable=True, model=args.model).close()
        workers = args.workers or processors()
        with listening(args.host, args.port) as listener:
            host, port = listener.getsockname()[:2]
            url = f"{'https' if options.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
            rights = (
                "with tokens" if options.tokens else "open to all" if options.open_to_all else "read-only"
            )
            line = f"serving {shown(options.db)} at {url} ({rights}, workers: {workers})"

            def started() -> None:
                print(line, file=sys.stderr, flush=True)

            Supervisor(options, listener, workers, started, complain).run()
    return DONE


def _options(args: argparse.Namespace, folder: Path) -> Options:
    from samaf.isolated import AudioBounds
    from samaf.places import default_db
    from samaf.serve.access import read_tokens
    from samaf.serve.options import Bounds, Options

    if args.tokens is not None and args.no_auth:
        raise SamafError("--tokens and --no-auth contradict each other; give one of them")
    for path in args.allow:
        if not os.path.isdir(path):
            raise SamafError(f"{shown(path)}: no such folder; check --allow")
    return Options(
        db=Path(os.path.realpath(default_db() if args.db is None else args.db)),
        folder=folder,
        model=None if args.model is None else os.path.abspath(args.model),
        tokens=() if args.tokens is None else read_tokens(args.tokens),
        open_to_all=args.no_auth,
        hosts=(args.host, *args.name),
        origins=tuple(args.origin),
        allowed=tuple(Path(os.path.realpath(path)) for path in args.allow),
        bounds=Bounds(
            n_bytes=args.max_megabytes * 1_000_000,
            clip=AudioBounds(args.max_clip, args.max_decoding),
            recording=AudioBounds(args.max_recording, 10 * args.max_decoding),
            requests=args.max_requests,
            requests_per_client=args.max_requests_per_client,
        ),
        tls=None if args.tls_cert is None else (args.tls_cert, args.tls_key),
    )


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, 0 to 65535")
    return int(text)


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name such as music.example, without a port")
    return text


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if (
        parts.scheme not in ("http", "https")
        or not parts.netloc
        or text != f"{parts.scheme}://{parts.netloc}"
    ):
        raise argparse.ArgumentTypeError(f"{text!r} is not an origin such as https://music.example")
    return text.lower()
