"""Files of a collection: which ones a folder holds, what they are, and how their recordings are called."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath

from samaf.audio import is_audio_path
from samaf.errors import AudioError, FingerprintError
from samaf.fingerprint import is_fingerprint_path
from samaf.formats import FINGERPRINT_MAGIC, LMDB_MAGIC, LMDB_MAGIC_AT

_DIGEST_BYTES = 1 << 20
_MOST_BYTES = 1 << 40
"""What is larger has holes, or is no file at all (/proc/kcore): to read it takes for ever."""

StrPath = str | os.PathLike[str]


def find_files(places: Iterable[StrPath], refuse: Callable[[str, str], None]) -> Iterator[str]:
    """Absolute paths of the files named, and of all audio and fingerprint files in the folders named.

    Folders are searched to the bottom, in order of names; hidden files and folders in them are passed over, links
    are followed. A file named twice comes once.

    Parameters
    ----------
    places
        Files and folders.
    refuse
        Called with (path, reason) for what does not exist, or cannot be listed, or holds nothing.
    """
    seen: set[str] = set()
    folders: set[tuple[int, int]] = set()
    for place in places:
        path = os.path.abspath(place)
        if os.path.isdir(path):
            found: Iterable[str] = _walk(path, folders, refuse)
        elif os.path.lexists(path):
            found = (path,)
        else:
            refuse(path, "no such file or folder; check the name")
            continue
        for name in found:
            if name not in seen:
                seen.add(name)
                yield name


def _walk(top: str, folders: set[tuple[int, int]], refuse: Callable[[str, str], None]) -> Iterator[str]:
    something = False

    def unlisted(error: OSError) -> None:
        nonlocal something
        something = True
        refuse(str(error.filename), f"cannot be searched ({error.strerror}); check its permissions")

    left = [top]
    while left:
        folder = left.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in folders:  # a link back up would lead in circles
                something = True
                continue
            folders.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listed:
                entries = sorted((e for e in listed if not e.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            unlisted(error)
            continue
        left += [entry.path for entry in reversed(entries) if _is_folder(entry)]
        for entry in entries:
            if not _is_folder(entry) and (is_audio_path(entry.name) or _is_fingerprint(entry.path)):
                something = True
                yield entry.path
    if not something:
        refuse(top, "holds no audio files; name the folder that does")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in circles, or where nobody may look
        return False


def _is_fingerprint(path: str) -> bool:
    """Tell fingerprint files from indexes, which were called the same."""
    if not is_fingerprint_path(path):
        return False
    if not os.path.isfile(path):
        return True  # to open a pipe would be to wait for ever; whoever takes it up will say what it is
    try:
        with open(path, "rb") as file:
            return file.read(LMDB_MAGIC_AT + 4)[LMDB_MAGIC_AT:] != struct.pack("=I", LMDB_MAGIC)
    except OSError:
        return True  # whoever reads it will say why it cannot be read


def check_kind(path: StrPath) -> None:
    """Refuse a fingerprint that is not called one, and what is called a fingerprint and is none.

    Else one file's name would decide what becomes of another file with the same content.

    Raises
    ------
    AudioError, FingerprintError
        It is no regular file, or empty, or above 1 TiB, or not what its name says. The message does not name it.
    OSError
        It cannot be read.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise AudioError("is no regular file; name a file of audio")
    if status.st_size > _MOST_BYTES:
        raise AudioError(f"has {status.st_size:,} bytes, more than any recording; name a file of audio")
    with open(path, "rb") as file:
        start = file.read(len(FINGERPRINT_MAGIC))
    if not start:
        raise AudioError("is empty; copy or record it again")
    if is_fingerprint_path(path) and start != FINGERPRINT_MAGIC:
        raise FingerprintError("not a fingerprint file; make one with `samaf encode`")
    if start == FINGERPRINT_MAGIC and not is_fingerprint_path(path):
        raise FingerprintError("is a fingerprint, not audio; end its name with .samaf")


def digest(path: StrPath) -> str:
    """SHA-256 of a file's bytes, in hex.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    hasher = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_DIGEST_BYTES):
            hasher.update(block)
    return hasher.hexdigest()


def title_of(path: StrPath, tags: Mapping[str, str]) -> str:
    """What to call a recording: its title tag, else its file name without the suffix."""
    return tags.get("title") or PurePath(path).stem
