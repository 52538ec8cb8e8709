"""`samaf serve`, asked over sockets: its answers, its refusals, and that nothing makes it fall over."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prints import print_of
from serving import READ, WRITE, Service, write_tokens
from synth import tune, write

from samaf import Library
from samaf.cli import main
from samaf.encoder import Encoder
from samaf.index import Index

for name in ("fastapi", "prometheus_client", "python_multipart", "uvicorn"):
    pytest.importorskip(name, reason=f"{name} is not installed; the extra serve has it")
httpx = pytest.importorskip("httpx", reason="httpx is not installed; the extra serve has it")

from samaf.serve.problems import ProblemError  # noqa: E402  (needs what is looked for above)
from samaf.serve.service import _while_there  # noqa: E402
from samaf.serve.uploads import check_name  # noqa: E402

READER, WRITER = ({"Authorization": f"Bearer {token}"} for token in (READ, WRITE))
AUDIO = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Songs in an index, others that are in none, and clips."""
    folder = tmp_path_factory.mktemp("serve")
    for name, seeds in (("songs", range(3)), ("more", range(10, 13))):
        (folder / name).mkdir()
        for seed in seeds:
            write(folder / name / f"{seed}.flac", tune(12, seed=seed))
    write(folder / "clip.wav", tune(12, seed=1)[3 * 16000 : 8 * 16000])
    write(folder / "long.flac", tune(31, seed=1))
    write(folder / "silence.wav", np.zeros(32000, np.float32))
    (folder / "text.wav").write_text("This is no audio at all. " * 100)
    write_tokens(folder)
    with Library(folder / "songs.samafdb", writable=True) as library:
        assert library.add(folder / "songs").added == 3
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    """A service with tokens and narrow bounds."""
    bounds = ["--max-megabytes", 1, "--max-clip", 30, "--max-requests", 3, "--max-requests-per-client", 2]
    shutil.copy(folder / "songs.samafdb", folder / "served.samafdb")
    arguments = ["--db", folder / "served.samafdb", "--tokens", folder / "tokens", "--allow", folder / "more"]
    arguments += ["--name", "music.example", "--origin", "https://page.example"]
    made = Service(*arguments, *bounds)
    yield made
    assert made.stop() == 0
    assert not any("Traceback" in line for line in made.lines)


@pytest.fixture(scope="module")
def open_service(folder: Path) -> Iterator[Service]:
    """A service as it is by default, without tokens."""
    made = Service("--db", folder / "songs.samafdb", workers=1)
    yield made
    assert made.stop() == 0


@pytest.fixture
def ask(service: Service) -> Iterator[Any]:
    """A reader's client."""
    with httpx.Client(base_url=service.url, headers=READER, timeout=60) as client:
        yield client


def raw(service: Service, head: str, body: bytes = b"", *, half: bool = False) -> bytes:
    """Send bytes as they are; returns all that is answered until the connection is closed."""
    with socket.create_connection((service.host, service.port), 30) as sent:
        sent.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        if half:
            sent.shutdown(socket.SHUT_WR)
        answer = b""
        while block := sent.recv(65536):
            answer += block
    return answer


def refused(answer: Any, status: int, *parts: str) -> dict[str, Any]:
    """Check that an answer is a problem of one sentence."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status and told["type"] == "about:blank" and told["title"]
    assert "\n" not in told["detail"] and "Traceback" not in told["detail"]
    for part in parts:
        assert part in told["detail"]
    return told


def test_a_search_ends_when_its_client_has_gone() -> None:
    class Request:
        def __init__(self, has_gone: bool) -> None:
            self.has_gone = has_gone

        async def is_disconnected(self) -> bool:
            return self.has_gone

    async def searched(has_gone: bool) -> None:
        with _while_there(Request(has_gone)) as still:  # type: ignore[arg-type]
            await asyncio.sleep(0.01)
            still(1.0, 2.0)

    asyncio.run(searched(False))
    with pytest.raises(ProblemError, match="closed"):
        asyncio.run(searched(True))


@pytest.mark.parametrize(
    "name", ["a b.wav", "l\u2019\u00e9t\u00e9\u202f!.mp3", '12" mix.wav', "\u0646\u200c\u0645.ogg"]
)
def test_names_that_recordings_have(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".hidden", "a/b.wav", "a\\b.wav", "a\n.wav", "a\u202e.wav", "a\udc80.wav", 201 * "a"]
)
def test_names_that_none_has(name: str) -> None:
    with pytest.raises(ProblemError, match="cannot be a file's name"):
        check_name(name)


# -- answers ---------------------------------------------------------------------------------------------------------


def test_the_answer_is_that_of_samaf_search(
    folder: Path, ask: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "--json", "--db", str(folder / "songs.samafdb"), str(folder / "clip.wav")]) == 0
    expected = json.loads(capsys.readouterr().out)
    clip = (folder / "clip.wav").read_bytes()
    print_ = Encoder().encode_query(folder / "clip.wav").to_bytes()
    for answer in (
        ask.post("/v1/search", files={"file": ("clip.wav", clip)}),
        ask.post("/v1/search?name=clip.wav", content=clip, headers={"Content-Type": "audio/wav"}),
        ask.post("/v1/search?name=clip.wav", content=iter([clip[:70000], clip[70000:]])),  # chunked
        ask.post("/v1/search/fingerprint?name=clip.wav", content=print_, headers=AUDIO),
        ask.post("/v1/search/fingerprint", files={"file": ("clip.wav", print_)}),
        ask.post("/v1/search", files={"file": ("clip.samaf", print_)}),
    ):
        assert answer.status_code == 200, answer.text
        told = answer.json()
        [match] = told.pop("matches")
        assert told.pop("query") in ("clip.wav", "clip.samaf") and told.pop("elapsed_s") > 0
        assert {**match, **told} == {k: v for k, v in expected.items() if k not in ("query", "elapsed_s")}


def test_the_options_are_those_of_samaf_search(folder: Path, ask: Any) -> None:
    clip = (folder / "clip.wav").read_bytes()
    options = {"ber": 0.0, "exhaustive": "true", "speed": "1:1", "max_evalue": "inf", "prior": 0.1, "top": 2}
    told = ask.post("/v1/search", params=options, content=clip, headers=AUDIO).json()
    assert told["matches"] == [] and told["coverage"] == 0.0 and told["gaps"] == [[0.0, 5.0]]
    many = ask.post("/v1/search", params={"min_probability": 0, "top": 3}, content=clip, headers=AUDIO).json()
    ranks = [match["rank"] for match in many["matches"]]
    assert ranks and ranks == list(range(1, len(ranks) + 1))


def test_the_library_can_be_read(folder: Path, ask: Any) -> None:
    stats = ask.get("/v1/stats").json()
    assert stats["n_tracks"] == 3 and stats["header"]["bits"] == 128 and stats["writable"] is False
    assert ask.get("/v1/stats", headers=WRITER).json()["writable"] is True
    assert stats["bounds"] == {"bytes": 1_000_000, "clip_s": 30.0, "recording_s": 86_400.0}
    page = ask.get("/v1/tracks", params={"limit": 2}).json()
    assert [track["title"] for track in page["tracks"]] == ["0", "1"] and page["next"] == 2
    rest = ask.get("/v1/tracks", params={"limit": 2, "after": page["next"]}).json()
    assert [track["title"] for track in rest["tracks"]] == ["2"] and rest["next"] is None
    found = ask.get("/v1/tracks", params={"text": f"{folder.name.upper()} 1.FLAC"}).json()
    assert [track["track_id"] for track in found["tracks"]] == [2]
    assert ask.get("/v1/tracks/2").json() == found["tracks"][0]


def test_what_is_added_is_found_by_all_workers_at_once_and_gone_when_it_is_removed(
    folder: Path, service: Service
) -> None:
    song = folder / "more" / "10.flac"
    with httpx.Client(base_url=service.url, headers=WRITER, timeout=60) as client:
        added = client.post("/v1/tracks", files={"file": ("Ten.flac", song.read_bytes())})
        assert added.status_code == 201 and added.json()["status"] == "added"
        track_id, kept = added.json()["track_id"], Path(added.json()["path"])
        assert kept.read_bytes() == song.read_bytes() and kept.is_relative_to(
            folder / "served.samafdb.uploads"
        )
        for again in ("Ten.flac", "Eleven.flac"):
            told = client.post("/v1/tracks", files={"file": (again, song.read_bytes())})
            assert told.status_code == 200 and told.json()["track_id"] == track_id
        for _ in range(6):  # a connection each, so that both workers are asked
            answer = httpx.post(f"{service.url}/v1/search", headers=READER, files={"file": song.read_bytes()})
            assert answer.json()["matches"][0]["track_id"] == track_id
        assert client.delete(f"/v1/tracks/{track_id}").status_code == 204
        assert not kept.parent.exists()
        answer = httpx.post(f"{service.url}/v1/search", headers=READER, files={"file": song.read_bytes()})
        assert track_id not in [match["track_id"] for match in answer.json()["matches"]]
        refused(client.delete(f"/v1/tracks/{track_id}"), 404, f"no track {track_id}")
        refused(client.get(f"/v1/tracks/{track_id}"), 404, f"no track {track_id}")


def test_files_of_the_machine_are_added_only_from_where_it_is_allowed(folder: Path, service: Service) -> None:
    link, away = folder / "more" / "link.flac", folder / "songs" / "0.flac"
    link.symlink_to(away)
    with httpx.Client(base_url=service.url, headers=WRITER, timeout=60) as client:
        for path in (away, folder / "more" / ".." / "songs", "/etc/passwd", link):
            refused(client.post("/v1/tracks", json={"paths": [str(path)]}), 403, "--allow")
        for body in ({"paths": "x"}, {"paths": ["more"]}, {"paths": ["/a\0b"]}, {"paths": [1]}, {}, [], "["):
            text = body if isinstance(body, str) else json.dumps(body)
            refused(
                client.post("/v1/tracks", content=text, headers={"Content-Type": "application/json"}), 422
            )
        answer = client.post("/v1/tracks", json={"paths": [str(folder / "more")]})
        told = [json.loads(line) for line in answer.text.splitlines()]
        assert {Path(one["path"]).name: one["status"] for one in told} == {
            "10.flac": "added",
            "11.flac": "added",
            "12.flac": "added",
            "link.flac": "failed",
        }
        for one in told:
            if one["track_id"] is not None:
                assert client.delete(f"/v1/tracks/{one['track_id']}").status_code == 204
    assert (folder / "more" / "10.flac").exists()  # only what was uploaded goes with its track
    link.unlink()


def test_it_is_alive_and_ready_and_counts_over_all_workers(ask: Any, service: Service) -> None:
    assert httpx.get(f"{service.url}/healthz").json() == {"status": "alive"}
    assert httpx.get(f"{service.url}/readyz").json() == {"status": "ready"}

    def n_alive() -> float:
        text = ask.get("/metrics").text
        assert "samaf_requests_in_progress 0.0" in text and "samaf_index_tracks 3.0" in text
        [line] = re.findall(r'samaf_requests_total\{method="GET",route="/healthz",status="200"\} (.*)', text)
        return float(line)

    before = n_alive()
    for _ in range(8):
        httpx.get(f"{service.url}/healthz")
    assert n_alive() == before + 8


def test_a_request_is_a_line_of_the_log_without_its_token(ask: Any, service: Service) -> None:
    ask.get("/v1/tracks/77")
    line = json.loads(service.logged('"/v1/tracks/77"'))
    assert (line["method"], line["status"], line["caller"], line["client"]) == (
        "GET",
        404,
        "reader",
        "127.0.0.1",
    )
    assert not any(READ in line or WRITE in line for line in service.lines)


def test_the_pages_load_nothing_from_elsewhere(ask: Any) -> None:
    for path in ("/", "/docs"):
        answer = ask.get(path)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
        assert not re.findall(r"""(?:src|href|url|import)\s*[=(]\s*["']?(?:https?:)?//""", answer.text)
        policy = answer.headers["content-security-policy"]
        assert (
            "default-src 'none'" in policy and "http" not in policy and "script-src blob: 'sha256-" in policy
        )
    told = ask.get("/openapi.json").json()
    assert {
        "/v1/search",
        "/v1/search/fingerprint",
        "/v1/tracks",
        "/v1/tracks/{track_id}",
        "/v1/stats",
    } <= set(told["paths"])
    named = {parameter["name"] for parameter in told["paths"]["/v1/search"]["post"]["parameters"]}
    assert named == {"min_probability", "prior", "max_evalue", "ber", "top", "speed", "exhaustive", "name"}


# -- refusals --------------------------------------------------------------------------------------------------------


def test_the_clip_is_at_fault(folder: Path, ask: Any) -> None:
    for name, part in (
        ("text.wav", "text.wav: "),
        ("silence.wav", "silence.wav: is silent"),
        ("long.flac", "long.flac: is longer than 30 s"),
    ):
        told = refused(
            ask.post("/v1/search", files={"file": (name, (folder / name).read_bytes())}), 400, part
        )
        assert "samaf-serve-" not in told["detail"]
    refused(ask.post("/v1/search", content=b"", headers=AUDIO), 400, "empty")
    refused(ask.post("/v1/search", files={"file": ("x.wav", b"")}), 400, "empty")
    refused(ask.post("/v1/search/fingerprint", content=b"SAMAFP", headers=AUDIO), 400, "clip: ")
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    refused(ask.post("/v1/search", content=b"--y\r\n\r\n", headers=form), 400, "form")
    refused(
        ask.post("/v1/search", content=b"x", headers={"Content-Type": "multipart/form-data"}), 400, "form"
    )


def test_tokens_are_asked_for(folder: Path, service: Service) -> None:
    clip = {"file": (folder / "clip.wav").read_bytes()}
    for headers in (
        {},
        {"Authorization": "Bearer wrong-token-0123456789"},
        {"Authorization": f"Basic {READ}"},
    ):
        for method, path in (
            ("POST", "/v1/search"),
            ("POST", "/v1/search/fingerprint"),
            ("POST", "/v1/tracks"),
            ("DELETE", "/v1/tracks/1"),
            ("GET", "/v1/tracks"),
            ("GET", "/v1/tracks/1"),
            ("GET", "/v1/stats"),
            ("GET", "/metrics"),
        ):
            files = clip if method == "POST" else None
            answer = httpx.request(method, service.url + path, headers=headers, files=files)
            refused(answer, 401, "Authorization: Bearer TOKEN")
            assert answer.headers["www-authenticate"] == "Bearer"
    for method, path in (("POST", "/v1/tracks"), ("DELETE", "/v1/tracks/1")):
        files = clip if method == "POST" else None
        answer = httpx.request(method, service.url + path, headers=READER, files=files)
        refused(answer, 403, "reading only")
    with Index.open(folder / "served.samafdb") as index:
        assert index.stats().n_tracks == 3


def test_without_tokens_it_is_read_only_whatever_a_proxy_says(folder: Path, open_service: Service) -> None:
    before = (folder / "songs.samafdb").read_bytes()
    clip = {"file": (folder / "clip.wav").read_bytes()}
    for headers in ({}, WRITER, {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"}):
        assert httpx.post(f"{open_service.url}/v1/search", headers=headers, files=clip).json()["matches"]
        refused(httpx.post(f"{open_service.url}/v1/tracks", headers=headers, files=clip), 403, "read-only")
        refused(httpx.delete(f"{open_service.url}/v1/tracks/1", headers=headers), 403, "read-only")
    assert httpx.get(f"{open_service.url}/v1/stats").json()["writable"] is False
    assert (folder / "songs.samafdb").read_bytes() == before


def test_foreign_names_and_pages_are_refused(service: Service) -> None:
    own = f"127.0.0.1:{service.port}"

    def status(**headers: str) -> int:
        return httpx.get(f"{service.url}/healthz", headers=headers).status_code

    for host in (own, "localhost", f"LOCALHOST:{service.port}", "music.example", "[::1]:80", "10.1.2.3"):
        assert status(host=host) == 200, host
    for host in (
        "evil.example",
        "music.example.evil.example",
        "127.0.0.1.evil.example",
        "a b",
        "x/y",
        ":80",
        "@",
    ):
        refused(httpx.get(f"{service.url}/healthz", headers={"host": host}), 403, "--name")
    for origin in (f"http://{own}", f"https://{own}", "https://page.example"):
        assert status(host=own, origin=origin) == 200, origin
    for origin in (
        "null",
        "http://evil.example",
        "http://127.0.0.1:1",
        "https://page.example.evil.example",
        "x",
    ):
        answer = httpx.post(f"{service.url}/v1/search", headers={"host": own, "origin": origin, **READER})
        refused(answer, 403, "--origin")
        assert "access-control-allow-origin" not in answer.headers


def test_pages_of_an_origin_that_was_named_may_call_it(folder: Path, service: Service) -> None:
    page = {"Origin": "https://page.example"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    answer = httpx.options(f"{service.url}/v1/search", headers={**page, **asked})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    clip = {"file": (folder / "clip.wav").read_bytes()}
    answer = httpx.post(f"{service.url}/v1/search", headers={**page, **READER}, files=clip)
    assert answer.headers["access-control-allow-origin"] == "https://page.example"
    assert "access-control-allow-origin" not in httpx.get(f"{service.url}/healthz").headers


def test_what_is_nowhere(ask: Any) -> None:
    refused(ask.get("/v1/nothing"), 404, "/v1/nothing")
    refused(ask.get("/v1/../../etc/passwd"), 404)
    refused(ask.get("/v1/tracks/%2e%2e%2fetc"), 404)
    refused(ask.get("/v1/tracks/two"), 422, "track_id")
    refused(ask.get("/v1/tracks/999999999999999999999999999999"), 404)
    refused(ask.put("/v1/search"), 405, "PUT")


def test_another_model_is_a_conflict(service: Service, tmp_path: Path) -> None:
    content = print_of(6).to_bytes()
    with httpx.Client(base_url=service.url, headers=WRITER, timeout=60) as client:
        refused(
            client.post("/v1/search/fingerprint", content=content, headers=AUDIO), 409, "was made with model"
        )
        files = {"file": ("x.samaf", content)}
        refused(client.post("/v1/tracks", files=files), 409, "was made with model")
        short = Encoder(bits=64).encode(tune(8))
        refused(client.post("/v1/tracks", files={"file": ("x.samaf", short.to_bytes())}), 409, "128 bits")


def test_an_upload_that_is_too_large_is_refused_before_it_is_read(service: Service, ask: Any) -> None:
    head = f"POST /v1/search HTTP/1.1\nHost: {service.host}\nAuthorization: Bearer {READ}"
    answer = raw(service, f"{head}\nContent-Type: audio/wav\nContent-Length: 1000001\nExpect: 100-continue")
    assert answer.startswith(b"HTTP/1.1 413 ") and b"100 Continue" not in answer and b"1,000,000" in answer
    chunk = b"8000\r\n" + bytes(32768) + b"\r\n"
    answer = raw(service, f"{head}\nContent-Type: audio/wav\nTransfer-Encoding: chunked", 31 * chunk)
    assert answer.startswith(b"HTTP/1.1 413 ")  # though there is no end of it
    form = f"{head}\nContent-Type: multipart/form-data; boundary=x\nTransfer-Encoding: chunked"
    part = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    answer = raw(service, form, b"%x\r\n%s\r\n" % (len(part), part) + 31 * chunk)
    assert answer.startswith(b"HTTP/1.1 413 ")
    refused(ask.post("/v1/search", files={"file": bytes(2_000_000)}), 413, "send a part")
    with httpx.Client(base_url=service.url, headers=WRITER) as client:
        refused(client.post("/v1/tracks", files={"file": ("x.wav", bytes(1_000_001))}), 413)


def test_other_kinds_of_bodies_are_refused(ask: Any) -> None:
    for kind in ("text/html", "application/json", "application/x-www-form-urlencoded"):
        refused(ask.post("/v1/search", content=b"x", headers={"Content-Type": kind}), 415, kind, "file")
    refused(
        ask.post("/v1/search", content=b"x", headers={**AUDIO, "Content-Encoding": "gzip"}), 415, "compressed"
    )


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("ber=2", "ber"),
        ("ber=nan", "ber"),
        ("ber=low", "ber"),
        ("min_probability=1", "min_probability"),
        ("prior=0", "prior"),
        ("max_evalue=-1", "max_evalue"),
        ("top=0", "top"),
        ("top=101", "top"),
        ("speed=1", "LOW:HIGH"),
        ("speed=0.1:9", "slowest"),
        ("exhaustive=maybe", "exhaustive"),
        ("spede=1:1", "spede"),
        ("name=" + 201 * "x", "name"),
    ],
)
def test_wrong_options_are_refused(ask: Any, query: str, part: str) -> None:
    refused(ask.post(f"/v1/search?{query}", content=b"x", headers=AUDIO), 422, part)


def test_names_that_lead_elsewhere_are_refused(folder: Path, service: Service) -> None:
    song = (folder / "more" / "11.flac").read_bytes()
    with httpx.Client(base_url=service.url, headers=WRITER, timeout=60) as client:
        for name in (
            "../../x.flac",
            "/etc/x.flac",
            "a\\b.flac",
            "..",
            ".x.flac",
            "a\nb.flac",
            201 * "x",
            "a\0b",
        ):
            refused(client.post("/v1/tracks", params={"name": name}, content=song, headers=AUDIO), 422)
            sent = name.replace("\\", "\\\\").encode()
            body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="' + sent + b'"\r\n\r\n'
            form = {"Content-Type": "multipart/form-data; boundary=x"}
            answer = client.post("/v1/tracks", content=body + song + b"\r\n--x--\r\n", headers=form)
            assert answer.status_code in (400, 422), name
        refused(client.post("/v1/tracks", content=song, headers=AUDIO), 422, "?name=")
        refused(client.post("/v1/tracks", files={"other": song}), 422, "no part 'file'")
        twice = [("file", ("a.flac", song)), ("file", ("b.flac", song))]
        refused(client.post("/v1/tracks", files=twice), 422, "several")
        refused(client.post("/v1/tracks", files={"file": ("x.wav", b"no audio " * 99)}), 400, "x.wav: ")
        refused(client.post("/v1/tracks", files={"file": ("x.samaf", b"no print")}), 400, "x.samaf: ")
    with Index.open(folder / "served.samafdb") as index:
        assert index.stats().n_tracks == 3
    assert not os.path.exists("/etc/x.flac") and list(folder.glob("*.flac")) == [folder / "long.flac"]
    kept = folder / "served.samafdb.uploads"
    assert not kept.exists() or not any(kept.iterdir())


def test_too_many_at_once_are_told_to_wait(folder: Path, service: Service, ask: Any) -> None:
    clip = (folder / "clip.wav").read_bytes()

    def begun(token: str) -> socket.socket:
        held = socket.create_connection((service.host, service.port), 30)
        head = f"POST /v1/search HTTP/1.1\r\nHost: {service.host}\r\n"
        head += (
            f"Authorization: Bearer {token}\r\nContent-Type: audio/wav\r\nContent-Length: {len(clip)}\r\n\r\n"
        )
        held.sendall(head.encode() + clip[:1000])
        return held

    def wait_for(n_held: int) -> None:
        for _ in range(200):
            if f"samaf_requests_in_progress {n_held}.0" in ask.get("/metrics").text:
                return
            time.sleep(0.05)
        raise AssertionError(f"never {n_held}: {ask.get('/metrics').text}")

    def search() -> Any:
        return ask.post("/v1/search", content=clip, headers=AUDIO)

    wait_for(0)
    with ExitStack() as held:
        mine = [held.enter_context(begun(READ)) for _ in range(2)]
        wait_for(2)
        answer = search()
        refused(answer, 429, "2 requests of yours")
        assert int(answer.headers["retry-after"]) >= 1
        mine[0].close()  # half of a body is no reason to hold a place
        wait_for(1)
        assert search().status_code == 200
        for _ in range(2):
            held.enter_context(begun(WRITE))
        wait_for(3)
        answer = search()
        refused(answer, 503, "3 requests")
        assert int(answer.headers["retry-after"]) >= 1
        mine[1].sendall(clip[1000:])  # whoever was let in is answered
        assert mine[1].recv(15) == b"HTTP/1.1 200 OK"
    wait_for(0)
    assert search().status_code == 200


def test_an_index_that_somebody_else_writes_to(folder: Path, service: Service, ask: Any) -> None:
    song = {"file": ("x.flac", (folder / "more" / "12.flac").read_bytes())}
    time.sleep(2.0)  # the writer keeps the index for a second
    with Index.open(folder / "served.samafdb", readonly=False):
        answer = httpx.post(f"{service.url}/v1/tracks", headers=WRITER, files=song, timeout=60)
        refused(answer, 503, "is writing to index")
        assert answer.headers["retry-after"] == "5"
        clip = (folder / "clip.wav").read_bytes()
        assert ask.post("/v1/search", content=clip, headers=AUDIO).json()["matches"]
    kept = folder / "served.samafdb.uploads"
    assert not any(kept.iterdir())


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\1\2\3",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + 70000 * b"x",
        b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer " + READ.encode() + b"\r\n"
        b"Content-Type: audio/wav\r\nContent-Length: 9999\r\n\r\nRIFF",
    ],
)
def test_half_of_a_request_or_none_at_all(sent: bytes, service: Service, ask: Any) -> None:
    with socket.create_connection((service.host, service.port), 30) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while block := connection.recv(65536):
                answer += block
        except ConnectionError:
            pass
    assert not answer or re.match(rb"HTTP/1\.1 4\d\d .*application/problem\+json", answer, re.DOTALL), answer
    assert b"Traceback" not in answer
    assert ask.get("/v1/stats").status_code == 200


# -- processes -------------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_is_replaced_and_the_end_is_graceful(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "songs.samafdb", tmp_path / "db.samafdb")
    (tmp_path / "tmp").mkdir()
    service = Service(
        "--db",
        tmp_path / "db.samafdb",
        "--no-auth",
        "--max-requests",
        1,
        workers=1,
        TMPDIR=str(tmp_path / "tmp"),
    )
    clip = (folder / "clip.wav").read_bytes()
    head = f"POST /v1/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: audio/wav\r\nContent-Length: {len(clip)}"

    def begun() -> socket.socket:
        made = socket.create_connection((service.host, service.port), 60)
        made.sendall(head.encode() + b"\r\n\r\n" + clip[:1000])
        return made

    with begun() as held:
        time.sleep(0.5)
        [worker] = [
            int(name)
            for name in os.listdir("/proc")
            if name.isdecimal() and _is_worker(int(name), service.process.pid, tmp_path)
        ]
        os.kill(worker, signal.SIGKILL)
        assert held.recv(1) == b""
    service.logged("worker 0 ended with status -9; another takes its place")
    until = time.monotonic() + 60
    while httpx.get(f"{service.url}/readyz", timeout=60).status_code != 200 and time.monotonic() < until:
        time.sleep(0.2)
    with begun() as held:
        time.sleep(0.5)
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        held.sendall(clip[1000:])
        assert held.recv(15) == b"HTTP/1.1 200 OK"
    assert service.stop() == 0
    assert not any((tmp_path / "tmp").glob("samaf-serve-*"))
    with Index.open(tmp_path / "db.samafdb") as index:
        assert index.verify().ok and index.stats().n_tracks == 3


def _is_worker(pid: int, parent: int, folder: Path) -> bool:
    """Whether a process is a child of another that listens: the writer has no socket of the net."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        name = Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return False
    return int(stat[1]) == parent and b"spawn_main" in command and "writer" not in name and _listens(pid)


def _listens(pid: int) -> bool:
    listening = {
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[3] == "0A"
    }
    sockets = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        found = re.match(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{name}"))
        if found:
            sockets.add(found[1])
    return bool(sockets & listening)
