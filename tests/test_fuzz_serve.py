"""Requests that are broken at random: each is answered or hung up on, in time, and the next one is answered."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prints import print_of
from serving import READ, WRITE, Service, write_tokens
from synth import tune, write

from samaf import Library
from samaf.encoder import Encoder
from samaf.index import Index

for name in ("fastapi", "prometheus_client", "python_multipart", "uvicorn"):
    pytest.importorskip(name, reason=f"{name} is not installed; the extra serve has it")

ANSWER_S = 15.0
"""How long the answer to a whole request, or to half of one, may take."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    write(folder / "song.flac", tune(12))
    with Library(folder / "db.samafdb", writable=True) as library:
        library.add(folder / "song.flac")
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    arguments = ["--db", folder / "db.samafdb", "--tokens", write_tokens(folder), "--allow", folder]
    made = Service(*arguments, "--max-megabytes", 1)
    yield made
    assert made.stop() == 0


def requests(folder: Path) -> list[bytes]:
    """One of each kind."""
    wav = write(folder / "clip.wav", tune(3, seed=0)).read_bytes()
    form = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        + wav
        + b"\r\n--x--\r\n"
    )
    own = Encoder().encode_query(folder / "clip.wav").to_bytes()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (wav[:999], wav[999:])) + b"0\r\n\r\n"
    paths = json.dumps({"paths": [str(folder / "song.flac")]}).encode()
    made = []
    for method, path, token, kind, body in (
        ("GET", "/", READ, "", b""),
        ("GET", "/v1/tracks?after=0&limit=10&text=song", READ, "", b""),
        ("GET", "/v1/tracks/1", READ, "", b""),
        ("GET", "/openapi.json", "", "", b""),
        ("GET", "/metrics", READ, "", b""),
        ("POST", "/v1/search?top=1&speed=0.9:1.1", READ, "audio/wav", wav),
        ("POST", "/v1/search?min_probability=0", READ, "multipart/form-data; boundary=x", form),
        ("POST", "/v1/search/fingerprint", READ, "application/octet-stream", own),
        ("POST", "/v1/search/fingerprint", READ, "application/octet-stream", print_of(5).to_bytes()),
        ("POST", "/v1/tracks", READ, "multipart/form-data; boundary=x", form),
        ("POST", "/v1/tracks", WRITE, "application/json", paths),
        ("DELETE", "/v1/tracks/99", WRITE, "", b""),
    ):
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        head += f"Authorization: Bearer {token}\r\n" if token else ""
        head += f"Content-Type: {kind}\r\n" if kind else ""
        made.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        if kind == "audio/wav":
            made.append(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks)
    return made


def broken(request: bytes, chance: random.Random) -> bytes:
    """The same with some damage, more often in its head than in its body."""
    data = bytearray(request)
    for _ in range(chance.choice((1, 1, 2, 8))):
        end = chance.choice((request.index(b"\r\n\r\n") + 4, len(request)))
        at = chance.randrange(min(end, len(data)) or 1)
        kind = chance.randrange(5)
        if kind == 0:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del data[at : at + chance.choice((1, 10, 1000))]
        elif kind == 2:
            data[at:at] = data[at : at + chance.choice((1, 20, 200))]
        elif kind == 3:
            data[at:at] = chance.choice(
                (b"\r\n", b"\0", b"%00", b"../", b"\xff\xfe", b"99999999999999999999", b"nan")
            )
        else:
            del data[at:]
    return bytes(data)


def sent(service: Service, request: bytes, chance: random.Random | None = None) -> bytes:
    """Send it, by chance in two parts, and hang up, by chance at once; returns what is answered."""
    answer = b""
    cut = chance.choice((len(request), chance.randrange(len(request) + 1))) if chance else len(request)
    with socket.create_connection((service.host, service.port), ANSWER_S) as connection:
        try:
            connection.sendall(request[:cut])
            if cut < len(request):
                time.sleep(0.01)
                connection.sendall(request[cut:])
            if chance and chance.random() < 0.1:
                return b""
            connection.shutdown(socket.SHUT_WR)
            while block := connection.recv(65536):
                answer += block
        except TimeoutError:
            raise
        except OSError:  # it has hung up
            pass
    return answer


def fuzz(service: Service, folder: Path, count: int, seed: int) -> None:
    chance = random.Random(seed)
    whole = requests(folder)
    for k in range(count):
        request = broken(whole[k % len(whole)], chance)
        answer = sent(service, request, chance)  # raises if it takes too long
        assert not answer or answer.startswith(b"HTTP/1.1 "), (request, answer)
        assert b"Traceback" not in answer and not answer.startswith(b"HTTP/1.1 500"), (request, answer)
    for request in whole:
        answer = sent(service, request)
        assert answer.startswith((b"HTTP/1.1 20", b"HTTP/1.1 40")), (request, answer)
    assert not [line for line in service.lines if '"event": "error"' in line or "takes its place" in line]
    with Index.open(folder / "db.samafdb") as index:
        assert index.verify().ok and index.track(1).title == "song"


def test_requests_broken_at_random(service: Service, folder: Path) -> None:
    fuzz(service, folder, 120, 0)


@pytest.mark.slow
def test_a_thousand_of_them(service: Service, folder: Path) -> None:
    fuzz(service, folder, 1000, 1)
