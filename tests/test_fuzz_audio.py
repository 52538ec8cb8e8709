"""Audio that somebody has tampered with, and files with odd names or that are no files, through the command line.

Each case is drawn from its own seed. A tenth of them runs every time; all of them have the marker `slow`.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fuzzing import Child, Ended
from synth import tune, write
from test_audio import write_av

from samaf import Library

CASES, ODD = 300, 60
GOOD = 50

Rng = np.random.Generator


# -- sound files with changes ------------------------------------------------------------------------------------------


def flipped(data: bytes, rng: Rng, *, within: int | None = None) -> bytes:
    """With up to fifty bits changed, anywhere or in the first bytes."""
    out = np.frombuffer(data, np.uint8).copy()
    places = rng.integers(0, min(within or len(out), len(out)), rng.integers(1, 50))
    out[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
    return out.tobytes()


def cut(data: bytes, rng: Rng) -> bytes:
    return data[: rng.integers(0, len(data))]


def edited(data: bytes, rng: Rng) -> bytes:
    """With extreme numbers somewhere in its head."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, min(len(out), 400) - 8))
        form = ("<H", ">H", "<I", ">I", "<Q", ">Q")[rng.integers(6)]
        bits = 8 * struct.calcsize(form)
        value = (0, 1, (1 << bits) - 1, 1 << (bits - 1), (1 << (bits - 1)) - 1)[rng.integers(5)]
        struct.pack_into(form, out, at, value)
    return bytes(out)


def torn(data: bytes, rng: Rng) -> bytes:
    """With a piece of it left out, put in twice, put to zero, or put to noise."""
    start, end = sorted(rng.integers(0, len(data), 2).tolist())
    end = min(end, start + 20_000)
    piece = (b"", 2 * data[start:end], bytes(end - start), rng.bytes(end - start))[rng.integers(4)]
    return data[:start] + piece + data[end:]


CHANGES: tuple[Callable[[bytes, Rng], bytes], ...] = (
    flipped,
    lambda data, rng: flipped(data, rng, within=150),
    cut,
    edited,
    torn,
)


# -- bombs -------------------------------------------------------------------------------------------------------------


def wav_head(tag: int, channels: int, rate: int, bits: int, n_bytes: int) -> bytes:
    block = channels * bits // 8
    fields = struct.pack("<HHIIHH", tag, channels, rate, rate * block & 0xFFFFFFFF, block & 0xFFFF, bits)
    return (
        b"RIFF"
        + struct.pack("<I", n_bytes & 0xFFFFFFFF)
        + b"WAVEfmt \x10\0\0\0"
        + fields
        + (b"data" + struct.pack("<I", n_bytes & 0xFFFFFFFF))
    )


def box(kind: bytes, *parts: bytes, size: int | None = None) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", size if size is not None else 8 + len(body)) + kind + body


def bombs(bases: dict[str, bytes], folder: Path) -> list[tuple[str, bytes]]:
    """(name, content) of files that claim, or hold, much more than their size lets expect."""
    silence = folder / "silence.flac"
    with soundfile.SoundFile(silence, "w", 44100, 2) as file:
        for _ in range(10):
            file.write(np.zeros((60 * 44100, 2), np.float32))
    flac, ogg, mp3, m4a = (bases[kind] for kind in ("flac", "ogg", "mp3", "m4a"))
    noise = np.random.default_rng(0).bytes(20_000)
    claim = b"\xff" * 4
    return [
        ("silence.flac", silence.read_bytes()),
        ("channels.wav", wav_head(1, 65535, 16000, 8, 1 << 31) + noise),
        ("thousand.wav", wav_head(1, 1024, 192_000, 16, 1 << 31) + noise),
        ("rate.wav", wav_head(1, 1, 0xFFFFFFFF, 16, 20_000) + noise),
        ("slow.wav", wav_head(1, 1, 1, 16, 20_000) + noise),
        ("bits0.wav", wav_head(1, 1, 16000, 0, 20_000) + noise),
        ("bits64.wav", wav_head(1, 1, 16000, 64, 20_000) + noise),
        ("tag.wav", wav_head(0xFFFF, 1, 16000, 16, 20_000) + noise),
        ("long.wav", wav_head(1, 1, 16000, 16, 0xFFFFFFF0) + noise),
        ("adpcm.wav", wav_head(2, 2, 16000, 4, 0x7FFFFFFF) + noise),
        ("g726.wav", wav_head(0x45, 1, 16000, 2, 20_000) + noise),
        ("picture.flac", flac[:4] + b"\x06\xff\xff\xff" + flac[4:]),
        ("comments.flac", flac[:4] + b"\x04\xff\xff\xff" + claim * 10 + flac[4:]),
        ("seeks.flac", flac[:4] + b"\x03\xff\xff\xf0" + claim * 5000),
        ("comments.ogg", ogg.replace(b"\x03vorbis", b"\x03vorbis" + claim, 1)),
        ("codebooks.ogg", ogg.replace(b"BCV", b"BCV" + claim, 1)),
        ("pages.ogg", ogg[:60] * 2000),
        ("tag.mp3", b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + mp3),
        ("frames.mp3", b"ID3\x03\0\0\0\x0f\x7f\x7f" + b"APIC\xff\xff\xff\xff\0\0" * 20_000 + mp3),
        ("junk.mp3", bytes(3_000_000) + mp3),
        ("noise.mp3", b"\xff\xfb\x90\x00" + noise * 100),
        ("deep.m4a", box(b"ftyp", b"M4A \0\0\0\0") + box(b"moov", size=0xFFFFFFFF) * 5000),
        (
            "nested.m4a",
            box(b"ftyp", b"M4A \0\0\0\0") + b"".join(box(b"moov", size=8 * (3000 - k)) for k in range(3000)),
        ),
        ("table.m4a", edited_table(m4a, b"stsz", 12)),
        ("times.m4a", edited_table(m4a, b"stts", 8)),
        ("chunks.m4a", edited_table(m4a, b"stco", 8)),
        ("chunkmap.m4a", edited_table(m4a, b"stsc", 8)),
        ("duration.m4a", edited_table(m4a, b"mdhd", 16)),
        ("ebml.mka", b"\x1a\x45\xdf\xa3\x01\xff\xff\xff\xff\xff\xff\xff" + noise),
        ("ebml.webm", bases["webm"][:60] + b"\x01\xff\xff\xff\xff\xff\xff\xfe" + bases["webm"][60:]),
    ]


def edited_table(data: bytes, kind: bytes, at: int) -> bytes:
    """An MP4 file of whose boxes one says that it has as many entries as can be said."""
    out, place = bytearray(data), data.index(kind)
    out[place + at - 4 + 4 : place + at + 4] = b"\x7f\xff\xff\xff"
    return bytes(out)


# -- playlists ---------------------------------------------------------------------------------------------------------


def playlists(port: int, other: Path) -> list[tuple[str, bytes]]:
    """(name, content) of all kinds of files that tell a player to fetch others."""
    host = f"127.0.0.1:{port}"
    url = f"http://{host}/a.wav"
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n%s\n#EXT-X-ENDLIST\n"  # noqa: F541
    key = f'#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:5,\n{other}\n'
    texts = {
        "a.m3u": f"{url}\n",
        "a.m3u8": hls % url,
        "a.wav": hls % url,
        "local.mp3": hls % other,
        "key.m4a": key,
        "map.mp4": f'#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXT-X-MAP:URI="{url}"\n#EXTINF:5,\nb.mp4\n',
        "master.aac": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{url}\n",
        "crypto.flac": hls % f"crypto+{url}",
        "udp.ogg": hls % f"udp://{host}",
        "concat.wav": f"ffconcat version 1.0\nfile '{url}'\n",
        "concatlocal.wav": f"ffconcat version 1.0\nfile '{other}'\n",
        "a.pls": f"[playlist]\nFile1={url}\nNumberOfEntries=1\n",
        "a.asx": f'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>',
        "ref.wma": f"[Reference]\nRef1={url}\n",
        "asf.wma": f"ASF {url}\n",
        "a.xspf": '<?xml version="1.0"?><playlist><trackList><track>'
        f"<location>{url}</location></track></trackList></playlist>",
        "a.smil": f'<smil><body><audio src="{url}"/></body></smil>',
        "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
        f'<Period><AdaptationSet mimeType="audio/mp4"><Representation id="1"><BaseURL>{url}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>",
        "session.wav": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio {port} RTP/AVP 0\n",
        "rtsp.mov": f"RTSPtextrtsp://{host}/a\r\n",
        "a.ram": f"rtsp://{host}/a.ra\n",
        "a.cue": f'FILE "{url}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
        "xxe.wav": f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "{url}">]><a>&b;</a>',
    }
    made = [(name, text.encode()) for name, text in texts.items()]
    reference = box(b"rdrf", bytes(4), b"url ", struct.pack(">I", len(url) + 1), url.encode() + b"\0")
    movie = box(b"ftyp", b"qt  \0\0\0\0") + box(b"moov", box(b"rmra", box(b"rmda", reference)))
    return [*made, ("movie.mov", movie)]


# -- the cases ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ground:
    """Where the cases run: sound files by kind, an index to search, and the port that must hear nothing."""

    folder: Path
    bases: dict[str, bytes]
    port: int

    @property
    def db(self) -> Path:
        return self.folder / "db.samafdb"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("ground")
    bases = {}
    for seed, kind in enumerate(["wav", "flac", "ogg", "opus", "mp3"]):
        bases[kind] = write(folder / f"base.{kind}", tune(3.0, seed, 48000), 48000).read_bytes()
    for kind, codec in (("m4a", "aac"), ("wma", "wmav2"), ("webm", "libopus")):
        bases[kind] = write_av(folder / f"base.{kind}", tune(3.0, 7, 48000), 48000, codec).read_bytes()
    film = write_av(folder / "base.mp4", tune(3.0, 8, 48000), 48000, "aac", video=True)
    bases["mp4"] = film.read_bytes()
    with Library(folder / "db.samafdb", writable=True) as library:
        assert library.add([folder / "base.flac", folder / "base.ogg", film]).added == 3
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        port = server.getsockname()[1]
        datagrams.bind(("127.0.0.1", port))
        server.setblocking(False)
        datagrams.setblocking(False)
        yield Ground(folder, bases, port)
        with pytest.raises(BlockingIOError):
            server.accept()
        with pytest.raises(BlockingIOError):
            datagrams.recv(1)


def cases(ground: Ground, step: int) -> Iterator[tuple[str, bytes]]:
    """(name, content) of each `step`-th case."""
    fixed = playlists(ground.port, ground.folder / "base.flac") + bombs(ground.bases, ground.folder)
    kinds = [kind for kind in ground.bases if kind != "webm"]
    for k in range(0, CASES, step):
        if k < len(fixed):
            yield f"{k:03}-{fixed[k][0]}", fixed[k][1]
            continue
        rng = np.random.default_rng(k)
        kind = kinds[rng.integers(len(kinds))]
        yield f"{k:03}.{kind}", CHANGES[rng.integers(len(CHANGES))](ground.bases[kind], rng)


def told(ended: Ended, name: str) -> list[str]:
    """What is wrong with how a command ended, or with what it said of a file."""
    faults = list(ended.faults)
    lines = [line for line in ended.err.splitlines() if line.startswith("samaf: ")]
    if ended.status == 2 and not (len(lines) == 1 and name in lines[0]):
        faults.append(f"{name}: {ended.err!r}")
    strange = [line for line in ended.err.splitlines() if not line.startswith(("samaf: ", "added "))]
    return faults + [f"{name}: {line!r}" for line in strange]


def fuzz(ground: Ground, folder: Path, step: int) -> list[str]:
    """What went wrong with each `step`-th case, in the commands in turn."""
    before = ground.db.read_bytes()
    faults = []
    with Child() as child:
        for k, (name, content) in enumerate(cases(ground, step)):
            path = folder / name
            path.write_bytes(content)
            command = (
                ("encode", "-o", folder / "out.samaf"),
                ("search", "--db", ground.db, "--speed", "1:1"),
                ("index", "add", "--db", folder / "new.samafdb"),
            )[k % 3]
            ended = child.run(*command, path)
            faults += told(ended, name)
            if "local" in name and ended.status != 2:
                faults.append(f"{name}: another file was read")
        if (folder / "new.samafdb").exists():
            faults += child.run("index", "verify", "--db", folder / "new.samafdb").faults
    assert ground.db.read_bytes() == before
    return faults


def test_some(ground: Ground, tmp_path: Path) -> None:
    assert not fuzz(ground, tmp_path, 10)


@pytest.mark.slow
def test_all(ground: Ground, tmp_path: Path) -> None:
    assert not fuzz(ground, tmp_path, 1)


# -- odd names and devices ---------------------------------------------------------------------------------------------


def linked(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def served(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the address of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def sparse(n_bytes: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(wav_head(1, 1, 16000, 16, n_bytes) if n_bytes < 1 << 32 else b"")
        os.truncate(path, n_bytes)

    return make


def shut(path: Path) -> None:
    path.mkdir()
    good(path / "inside.wav")
    path.chmod(0)


def deep(path: Path) -> None:
    for _ in range(200):
        path = path / "d"
    path.mkdir(parents=True)
    good(path / "bottom.wav")


def good(path: Path) -> None:
    samples = tune(1.5, seed=sum(os.fsencode(path.name)))
    soundfile.write(os.fsencode(path), samples, 16000, format="WAV", subtype="PCM_16")


def unreadable(path: Path) -> None:
    good(path)
    path.chmod(0)


Make = Callable[[Path], None]


def odd(port: int) -> list[tuple[str, Make]]:
    """(name, what makes it); names with a slash at their end are those of folders."""
    made: list[tuple[str, Make]] = [
        ("pipe.wav", os.mkfifo),
        ("pipe.samaf", os.mkfifo),
        ("zero.wav", linked("/dev/zero")),
        ("zero.samaf", linked("/dev/zero")),
        ("full.flac", linked("/dev/full")),
        ("random.mp3", linked("/dev/urandom")),
        ("null.wav", linked("/dev/null")),
        ("null.samaf", linked("/dev/null")),
        ("terminal.wav", linked("/dev/tty")),
        ("stdin.wav", linked("/dev/stdin")),
        ("stderr.wav", linked("/dev/stderr")),
        ("memory.wav", linked("/proc/self/mem")),
        ("core.wav", linked("/proc/kcore")),
        ("environ.wav", linked("/proc/self/environ")),
        ("descriptor.wav", linked("/proc/self/fd/0")),
        ("dangling.wav", linked("nowhere.wav")),
        ("dangling.samaf", linked("nowhere.samaf")),
        ("itself.wav", linked("itself.wav")),
        ("loop1.wav", linked("loop2.wav")),
        ("loop2.wav", linked("loop1.wav")),
        ("here", linked(".")),
        ("above", linked("..")),
        ("folder.wav", Path.mkdir),
        ("folder.samaf", Path.mkdir),
        ("socket.wav", served),
        ("socket.samaf", served),
        ("empty.wav", Path.touch),
        ("empty.samaf", Path.touch),
        ("holes.wav", sparse(1 << 27)),
        ("huge.wav", sparse((1 << 43) - 1)),
        ("huge.samaf", sparse((1 << 43) - 1)),
        ("unreadable.wav", unreadable),
        ("shut", shut),
        ("deep", deep),
        (".wav", good),
        ("..wav", good),
        ("no suffix", good),
        ("CAPITALS.WAV", good),
        ("double.wav.wav", good),
        (" .wav", good),
        ("trailing.wav ", good),
        ("-.wav", good),
        ("--db.wav", good),
        ("--", good),
        ("line\nbreak.wav", good),
        ("tab\tand\rreturn.wav", good),
        ("\x1b[31mred\x1b[2J.wav", good),
        (os.fsdecode(b"caf\xe9.wav"), good),
        (os.fsdecode(b"\xff\xfe\x80.wav"), good),
        (os.fsdecode(b"\xed\xa0\x80.wav"), good),
        ("\u202egnp.wav", good),
        ("e\u0301\U0001f3b5\u200d.wav", good),
        ("[red]markup[bold].wav", good),
        ("%s%n{0}.wav", good),
        ("$(touch x);`id`|.wav", good),
        ("*?.wav", good),
        ("n" * 251 + ".wav", good),
        (os.fsdecode(b"\xc3\xa9" * 125 + b".wav"), good),
        ("concat:a.wav", good),
        (f"http:127.0.0.1:{port}.wav", good),
    ]
    assert len(made) == ODD
    return made


NEVER = (  # what can stand on a command line, and be no file
    "",
    "a\0b.wav",
    "x" * 5000,
    "/" * 5000 + "a.wav",
    "http://127.0.0.1:{port}/a.wav",
    "file:///etc/passwd",
    "data:audio/wav;base64,UklGRg==",
    "pipe:0",
    "/dev/fd/999",
)


def made_in(folder: Path, ground: Ground, step: int) -> list[Path]:
    paths = []
    for name, make in odd(ground.port)[::step]:
        make(folder / name)
        paths.append(folder / name)
    return paths


def fuzz_names(ground: Ground, folder: Path, step: int) -> list[str]:
    faults = []
    before = ground.db.read_bytes()
    never = [name.format(port=ground.port) for name in NEVER[:: max(1, step // 3)]]
    with Child() as child:
        for path in [*made_in(folder, ground, step), *never]:
            for command in (
                ("encode", "--json"),
                ("search", "--db", ground.db, "--speed", "1:1"),
                ("index", "add", "--db", ground.folder / "names.samafdb"),
            ):
                ended = child.run(*command, "--", path)
                faults += ended.faults
                lines = ended.err.splitlines()
                if ended.status == 2 and not (
                    lines and all(line.startswith(("samaf: ", "added ")) for line in lines)
                ):
                    faults.append(f"{path!r}: {ended.err!r}")
                if isinstance(path, str) and ended.status != 2:
                    faults.append(f"{path!r}: is no file")
    assert ground.db.read_bytes() == before
    return faults


def test_some_names(ground: Ground, tmp_path: Path) -> None:
    assert not fuzz_names(ground, tmp_path, 10)


@pytest.mark.slow
def test_all_names(ground: Ground, tmp_path: Path) -> None:
    assert not fuzz_names(ground, tmp_path, 1)


# -- all of it in one folder -------------------------------------------------------------------------------------------


def add_all(ground: Ground, folder: Path, step: int) -> None:
    """A night's run: what is good is in, what is bad is told in a line each, and a second run adds nothing."""
    music, db = folder / "music", folder / "db.samafdb"
    music.mkdir()
    for k in range(GOOD):
        write(music / f"{2 * k:03}-good.flac", tune(1.2, seed=1000 + k))
    for name, content in cases(ground, step):
        (music / name).write_bytes(content)
    (music / "names").mkdir()
    made_in(music / "names", ground, step)
    told = []
    with Child(seconds=600) as child:
        for _ in range(2):
            ended = child.run("index", "add", "--db", db, "--json", music)
            assert not ended.faults
            assert ended.status == 2
            told.append([json.loads(line) for line in ended.out.splitlines()])
            failed = [record for record in told[-1] if record["status"] == "failed"]
            notes = [record for record in told[-1] if "warning" in record]
            assert len(ended.err.splitlines()) == len(ended.complaints) + 1 == len(failed) + len(notes) + 1
            assert failed and all(record["reason"] and "\n" not in record["reason"] for record in failed)
        assert child.run("index", "verify", "--db", db).status == 0
    first, second = told
    status = {record["path"]: record["status"] for record in first}
    assert all(status[str(music / f"{2 * k:03}-good.flac")] == "added" for k in range(GOOD))
    assert {record["status"] for record in second} <= {"skipped", "failed"}
    assert {record["path"] for record in second if record["status"] == "failed"} == {
        path for path, how in status.items() if how == "failed"
    }


def test_a_folder_with_some_of_them(ground: Ground, tmp_path: Path) -> None:
    add_all(ground, tmp_path, 10)


@pytest.mark.slow
def test_a_folder_with_all_of_them(ground: Ground, tmp_path: Path) -> None:
    add_all(ground, tmp_path, 1)
