"""How `samaf serve` starts, and what keeps it from starting; rooms of the service by themselves."""

from __future__ import annotations

import asyncio
import builtins
import importlib.util
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from serving import WRITE, Service, write_tokens
from synth import tune, write

from samaf import Library, SamafError
from samaf.cli import main
from samaf.isolated import AudioBounds

for name in ("fastapi", "prometheus_client", "python_multipart", "uvicorn"):
    pytest.importorskip(name, reason=f"{name} is not installed; the extra serve has it")
httpx = pytest.importorskip("httpx", reason="httpx is not installed; the extra serve has it")

from samaf.serve.access import read_tokens  # noqa: E402
from samaf.serve.app import create_app  # noqa: E402
from samaf.serve.bounds import Slots  # noqa: E402
from samaf.serve.engine import Engine  # noqa: E402
from samaf.serve.front import page_policy  # noqa: E402
from samaf.serve.options import Bounds, Options  # noqa: E402
from samaf.serve.problems import ProblemError  # noqa: E402

BOUNDS = Bounds(1_000_000, AudioBounds(30.0, 60.0), AudioBounds(600.0), 3, 2)


def refusal(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """What the command says when it does not start."""
    assert main(["serve", "--port", "0", *map(str, args)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("samaf: ") and "Traceback" not in line
    return line


@pytest.fixture
def db(tmp_path: Path) -> Path:
    with Library(tmp_path / "db.samafdb", writable=True):
        return tmp_path / "db.samafdb"


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn", "python_multipart", "prometheus_client"])
def test_without_its_extra_it_says_what_to_install(
    missing: str, db: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("samaf.cli.serve.find_spec", lambda name: None if name == missing else found(name))
    line = refusal(capsys, "--db", db)
    assert missing in line and line.endswith("pip install 'samaf[serve]'")


def test_without_tokens_it_does_not_listen_to_other_machines(
    db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        line = refusal(capsys, "--db", db, "--host", host)
        assert line.startswith(f"samaf: {host}: ") and "--tokens" in line and "--no-auth" in line


def test_what_is_said_wrongly(db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = write_tokens(tmp_path)
    assert "contradict" in refusal(capsys, "--db", db, "--tokens", tokens, "--no-auth")
    assert "no such folder" in refusal(capsys, "--db", db, "--tokens", tokens, "--allow", tmp_path / "x")
    assert "--tls-key" in refusal(capsys, "--db", db, "--tls-cert", tokens)
    line = refusal(capsys, "--db", db, "--tls-cert", tokens, "--tls-key", tokens)
    assert str(tokens) in line and "PEM" in line
    for option, value in (
        ("--port", "70000"),
        ("--port", "x"),
        ("--origin", "page"),
        ("--max-requests", "0"),
    ):
        assert option in refusal(capsys, option, value)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refusal(capsys, "--db", db, "--port", port)
        assert f"port {port}: cannot be listened on" in line


def test_an_index_that_is_missing(tmp_path: Path) -> None:
    process = ["--db", str(tmp_path / "none.samafdb"), "--port", "0", "--workers", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "samaf", "serve", *process], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("samaf: ") and "none.samafdb" in line
    assert not (tmp_path / "none.samafdb").exists()


def test_who_may_write_may_begin_with_nothing(tmp_path: Path) -> None:
    service = Service("--db", tmp_path / "new.samafdb", "--no-auth", workers=1)
    song = write(tmp_path / "song.flac", tune(12)).read_bytes()
    with httpx.Client(base_url=service.url, timeout=60) as client:
        assert client.post("/v1/search", files={"file": song}).json()["matches"] == []
        assert client.post("/v1/tracks", files={"file": ("song.flac", song)}).status_code == 201
        assert client.post("/v1/search", files={"file": song}).json()["matches"][0]["title"] == "song"
    assert service.stop() == 0


def test_over_tls(db: Path, tmp_path: Path, program: Callable[[str], str]) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key} -out {certificate}"
    command = [program("openssl"), *made.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    service = Service("--db", db, "--tls-cert", certificate, "--tls-key", key, workers=1)
    assert service.url.startswith("https://")
    with httpx.Client(
        base_url=service.url, verify=ssl.create_default_context(cafile=str(certificate))
    ) as client:
        assert client.get("/readyz").status_code == 200
    assert service.stop() == 0


# -- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "holds no token"),
        ("# none\n", "holds no token"),
        (f"{WRITE}\n", "line 1 is not"),
        (f"admin {WRITE}\n", "line 1 is not"),
        ("read\n", "line 1 is not"),
        ("\nread short\n", "line 2 must have at least 16"),
        (f"read {WRITE}é\n", "line 1 must have"),
    ],
)
def test_files_that_are_no_tokens(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(SamafError) as raised:
        read_tokens(tmp_path / "tokens")
    told = str(raised.value)
    assert told.startswith(f"{tmp_path}/tokens: ") and part in told and WRITE not in told and "\n" not in told


def test_files_of_tokens_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(bytes(2 << 20))
    for name in ("none", "bytes", "large", "."):
        with pytest.raises(SamafError, match="no tokens can be read"):
            read_tokens(tmp_path / name)


# -- rooms -----------------------------------------------------------------------------------------------------------


def test_the_bound_on_requests_is_one_for_all_workers(tmp_path: Path) -> None:
    Slots.make(tmp_path / "slots", BOUNDS)
    first, second = (Slots(tmp_path / "slots", BOUNDS) for _ in range(2))
    with first.taken(0, "a"), second.taken(1, "a"):
        assert first.n_taken == second.n_taken == 2
        with pytest.raises(ProblemError) as raised, second.taken(1, "a"):
            raise AssertionError
        assert raised.value.status == 429 and raised.value.headers["Retry-After"] == "1"
        with second.taken(1, "b"):
            with pytest.raises(ProblemError) as raised, first.taken(0, "c"):
                raise AssertionError
            assert raised.value.status == 503 and raised.value.headers["Retry-After"] == "1"
    assert first.n_taken == 0
    held = second.taken(1, "a")
    held.__enter__()
    first.free(0)
    assert first.n_taken == 1
    first.free(1)
    assert first.n_taken == 0


def asked(app: Any, method: str, path: str, **options: Any) -> Any:
    """Ask an application without sockets."""

    async def ask() -> Any:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, **options)

    return asyncio.run(ask())


@pytest.fixture
def options(db: Path, tmp_path: Path) -> Options:
    made = Options(db, tmp_path, BOUNDS)
    made.spool.mkdir()
    Slots.make(made.slots, BOUNDS)
    return made


def test_while_the_index_is_being_opened(options: Options) -> None:
    app = create_app(options, Engine(options))
    assert asked(app, "GET", "/healthz").status_code == 200
    for method, path in (("GET", "/readyz"), ("GET", "/v1/stats"), ("POST", "/v1/search")):
        answer = asked(app, method, path)
        assert answer.status_code == 503 and answer.headers["retry-after"] == "2"
        assert "being opened" in answer.json()["detail"]
    assert "samaf_requests_total" in asked(app, "GET", "/metrics").text


def test_a_mistake_of_ours_is_in_the_log_alone(
    options: Options, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = Engine(options)
    monkeypatch.setattr(Engine, "library", property(lambda self: 1 / 0))
    answer = asked(create_app(options, engine), "GET", "/v1/stats")
    assert (
        answer.status_code == 500 and "ZeroDivision" not in answer.text and "log" in answer.json()["detail"]
    )
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_body_that_comes_too_slowly(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samaf.serve.uploads.PAUSE_S", 0.05)
    monkeypatch.setattr("samaf.serve.front.LINGER_S", 0.05)
    engine = Engine(options)
    engine.load()

    async def slow() -> Any:
        yield b"RIFF"
        await asyncio.sleep(1.0)

    answer = asked(create_app(options, engine), "POST", "/v1/search", content=slow())
    assert answer.status_code == 408 and "faster" in answer.json()["detail"]
    assert not any(options.spool.iterdir())
    engine.close()


def test_a_page_may_run_what_stands_in_it_alone() -> None:
    policy = page_policy("<style>a {}</style><script>one()</script><script>two()</script>")
    assert policy.count("'sha256-") == 3 and "unsafe" not in policy and "default-src 'none'" in policy
    assert "style-src 'none'" in page_policy("<p>")


def test_the_command_line_does_not_load_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def refusing(name: str, *args: Any, **options: Any) -> ModuleType:
        assert name.partition(".")[0] not in ("fastapi", "uvicorn", "httpx"), name
        return imported(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refusing)
    assert main(["serve", "--help"]) == 0
