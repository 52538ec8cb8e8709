"""`samaf.Client` and `samaf.AsyncClient`: a service asked as a library is."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prints import print_of
from serving import READ, WRITE, Service, write_tokens
from synth import tune, write

import samaf
from samaf import AsyncClient, AudioError, Client, Library, MismatchError, SamafError, ServiceError
from samaf.encoder import Encoder

httpx = pytest.importorskip("httpx", reason="httpx is not installed; the extra serve has it")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client")
    (folder / "songs").mkdir()
    for seed in range(3):
        write(folder / "songs" / f"{seed}.flac", tune(12, seed=seed))
    write(folder / "new.flac", tune(12, seed=7))
    write(folder / "clip.wav", tune(12, seed=1)[3 * 16000 : 8 * 16000])
    with Library(folder / "db.samafdb", writable=True) as library:
        library.add(folder / "songs")
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    for name in ("fastapi", "prometheus_client", "python_multipart", "uvicorn"):
        pytest.importorskip(name, reason=f"{name} is not installed; the extra serve has it")
    made = Service("--db", folder / "db.samafdb", "--tokens", write_tokens(folder), workers=1)
    yield made
    assert made.stop() == 0


@pytest.mark.parametrize("upload", [False, True])
def test_the_matches_are_those_of_the_library(folder: Path, service: Service, upload: bool) -> None:
    clip = folder / "clip.wav"
    with Library(folder / "db.samafdb") as library, Client(service.url, token=READ, upload=upload) as client:
        expected, found = library.search(clip), client.search(clip)
        assert found == expected and type(found) is type(expected) and found[0].title == "1"
        assert (found.clip_s, found.coverage, found.gaps) == (
            expected.clip_s,
            expected.coverage,
            expected.gaps,
        )
        narrow = {"ber": 0.0, "top": 1, "speed": (1.0, 1.0), "exhaustive": True, "max_evalue": float("inf")}
        assert client.search(clip, **narrow) == library.search(clip, **narrow) == []
        print_ = Encoder().encode_query(clip)
        assert client.search(print_) == expected
        print_.save(folder / "clip.samaf")
        assert client.search(folder / "clip.samaf") == expected


def test_no_audio_leaves_the_machine(folder: Path, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    stream = httpx.Client.stream

    def watched(self: Any, **arguments: Any) -> Any:
        sent.append((arguments["url"], "files" in arguments, len(arguments.get("content") or b"")))
        return stream(self, **arguments)

    monkeypatch.setattr(httpx.Client, "stream", watched)
    with Client(service.url, token=READ) as client:
        client.search(folder / "clip.wav")
    n_bytes = len(Encoder().encode_query(folder / "clip.wav").to_bytes())
    assert sent == [("/v1/stats", False, 0), ("/v1/search/fingerprint", False, n_bytes)]


@pytest.mark.parametrize("upload", [False, True])
def test_a_library_is_looked_after(folder: Path, service: Service, upload: bool) -> None:
    with Client(service.url, token=WRITE, upload=upload) as client:
        added = client.add(folder / "new.flac")
        assert added["status"] == "added"
        assert client.search(folder / "new.flac")[0].track_id == added["track_id"]
        assert client.track(added["track_id"])["title"] == "new"
        assert [track["title"] for track in client.tracks()] == ["0", "1", "2", "new"]
        assert [track["track_id"] for track in client.tracks("new")] == [added["track_id"]]
        assert client.stats()["n_tracks"] == 4
        client.remove(added["track_id"])
        with pytest.raises(ServiceError, match=f"no track {added['track_id']}") as raised:
            client.track(added["track_id"])
        assert raised.value.status == 404


def test_awaited_it_is_the_same(folder: Path, service: Service) -> None:
    async def ask(upload: bool) -> None:
        async with AsyncClient(service.url, token=WRITE, upload=upload) as client:
            found = await asyncio.gather(*(client.search(folder / "clip.wav") for _ in range(3)))
            assert [matches[0].title for matches in found] == ["1"] * 3
            added = await client.add(folder / "new.flac")
            assert [track["title"] async for track in client.tracks()][-1] == "new"
            assert (await client.track(added["track_id"]))["title"] == "new"
            assert (await client.stats())["n_tracks"] == 4
            await client.remove(added["track_id"])
            with pytest.raises(ServiceError, match="no track"):
                await client.remove(added["track_id"])

    for upload in (False, True):
        asyncio.run(ask(upload))


def test_what_is_wrong_is_told_in_a_line(folder: Path, service: Service, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio " * 100)
    with Client(service.url, token=READ, retries=0) as client, Client(service.url, upload=True) as stranger:
        with pytest.raises(ServiceError, match="reading only") as raised:
            client.remove(1)
        assert raised.value.status == 403 and str(raised.value).startswith(f"{service.url}: ")
        with pytest.raises(ServiceError, match="token is missing"):
            stranger.search(folder / "clip.wav")
        with pytest.raises(ServiceError, match="was made with model") as raised:
            client.search(print_of(6))
        assert raised.value.status == 409
        with pytest.raises(ServiceError, match="ber must be"):
            client.search(folder / "clip.wav", ber=2.0)
        with pytest.raises(ValueError, match="slowest"):
            client.search(folder / "clip.wav", speed=(0.1, 9.0))
        with pytest.raises(TypeError, match="'spede'"):
            client.search(folder / "clip.wav", spede=1)  # type: ignore[call-arg]
        with pytest.raises(AudioError, match=r"text\.wav: "):
            client.search(tmp_path / "text.wav")
        with pytest.raises(AudioError, match=r"none\.wav: "):
            stranger.search(tmp_path / "none.wav")
    with (
        Client("http://127.0.0.1:1") as client,
        pytest.raises(ServiceError, match="cannot be reached") as raised,
    ):
        client.stats()
    assert raised.value.status == 0


class Scripted:
    """A server that gives answers as they were written."""

    def __init__(self, *answers: tuple[int, dict[str, str], bytes]) -> None:
        self.answers, self.asked = list(answers), 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, headers, body = outer.answers[min(outer.asked, len(outer.answers) - 1)]
                outer.asked += 1
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Scripted:
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


BUSY = json.dumps({"status": 503, "detail": "wait"}).encode()


def test_it_waits_as_long_as_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("samaf.client.time.sleep", pauses.append)
    answers = [(503, {"Retry-After": "2"}, BUSY), (429, {}, BUSY), (429, {"Retry-After": "x" * 9}, BUSY)]
    with Scripted(*answers, (503, {"Retry-After": "99999"}, BUSY), (200, {}, b"{}")) as server:
        client = Client(server.url)
        assert client.stats() == {}
        client.close()
        assert server.asked == 5
    assert (
        2.0 <= pauses[0] <= 2.5 and 1.0 <= pauses[1] <= 1.25 and 2.0 <= pauses[2] <= 2.5 and pauses[3] == 30.0
    )
    with Scripted((503, {"Retry-After": "0"}, BUSY)) as server, Client(server.url, retries=2) as client:
        with pytest.raises(ServiceError, match="wait") as raised:
            client.stats()
        assert server.asked == 3 and raised.value.status == 503


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 100_000, b'{"n": NaN}', b"\xff"])
def test_answers_that_are_none_of_samafs(body: bytes) -> None:
    with (
        Scripted((200, {}, body)) as server,
        Client(server.url) as client,
        pytest.raises(ServiceError, match="none of samaf's"),
    ):
        client.stats()
    with (
        Scripted((502, {}, body)) as server,
        Client(server.url) as client,
        pytest.raises(ServiceError, match="status 502"),
    ):
        client.stats()


def test_strange_headers_and_pages_are_refused(folder: Path) -> None:
    for body in (b"{}", b'{"tracks": 1, "next": null}', b'{"tracks": [], "next": 0}'):  # that would never end
        with (
            Scripted((200, {}, body)) as server,
            Client(server.url) as client,
            pytest.raises(ServiceError, match="none of samaf's"),
        ):
            list(client.tracks())
    header = {"model_id": "5a" * 32, "model_name": "other.npz", "bits": 128, "hop_s": 1.0, "query_hop_s": 0.1}
    with (
        Scripted((200, {}, json.dumps({"header": header}).encode())) as server,
        Client(server.url) as client,
        pytest.raises(MismatchError, match=r"other\.npz.*upload=True"),
    ):
        client.search(folder / "clip.wav")
    header["bits"] = 10**9
    with (
        Scripted((200, {}, json.dumps({"header": header}).encode())) as server,
        Client(server.url) as client,
        pytest.raises(ServiceError, match="bits"),
    ):
        client.search(folder / "clip.wav")


def test_without_httpx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(SamafError, match=r"pip install 'samaf\[serve\]'"):
        Client("http://127.0.0.1:8765")


def test_importing_samaf_loads_no_httpx() -> None:
    code = "import sys, samaf; samaf.ServiceError; assert 'httpx' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_errors_can_be_pickled() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(ServiceError("x: y", 503)))
    assert (str(error), error.status) == ("x: y", 503) and isinstance(error, samaf.SamafError)
