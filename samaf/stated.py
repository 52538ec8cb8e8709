"""How long a file says that it is, where its container tells: what can be read is held against it.

FLAC and MP4 and their like state a length in their headers, which the decoders give. Here is what they keep to
themselves: WAV, AIFF and AU state how many bytes of sound there are; the last page of an Ogg file is marked; the first
frame of most MP3 files holds the number of frames (the Xing or VBRI header). Raw MP3 and ADTS state nothing, so that
nobody can know whether such a file is whole; what ASF (WMA), AVI and Matroska with a picture state is not taken as the
length of the sound.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

SLACK_S = 0.5
"""So much may be missing without a word: codecs and containers differ by the delay of an encoder or a frame."""

_CUT_CHUNK = re.compile(r"(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)")
_UNKNOWN_SIZES = (
    1 << 31,
    1 << 32,
    1 << 63,
    1 << 64,
)  # or a little less: what writes to a pipe cannot know the size
_UNKNOWN_SLACK = 1 << 16

_PAGE_BYTES = 27 + 255 + 255 * 255  # the longest page of Ogg

_MPEG_RATES = (44100, 48000, 32000)


def shortfall(stated_s: float | None, read_s: float) -> str:
    """What to say of a file of which `read_s` seconds could be read, "" if that is all that it states.

    `stated_s` is None where nothing is stated, and infinite where a mark of the end is missing.
    """
    if stated_s is None or read_s >= stated_s - SLACK_S:
        return ""
    if stated_s == math.inf:
        return f"is cut off after {read_s:.1f} s: its end is missing; copy it again from where it is whole"
    return (
        f"is cut off or damaged: {read_s:.1f} s of the {stated_s:.1f} s that it states could be read; "
        "copy it again from where it is whole"
    )


def by_log(log: str, present_s: float) -> float | None:
    """Length that the sizes in a WAV, AIFF or AU file amount to; `present_s` of it are there.

    libsndfile cuts what a header states to what the file holds, and tells of that in its log alone.
    """
    for stated, present in _CUT_CHUNK.findall(log):
        stated_bytes, present_bytes = int(stated), int(present)
        unknown = any(0 <= size - stated_bytes <= _UNKNOWN_SLACK for size in _UNKNOWN_SIZES)
        if stated_bytes > present_bytes > 0 and not unknown:
            return present_s * stated_bytes / present_bytes
    return None


def ogg_is_whole(path: str) -> bool:
    """Whether the last page of an Ogg file is marked as the last."""
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, 2) - 2 * _PAGE_BYTES))
        tail = file.read()
    at = tail.rfind(b"OggS")
    return at >= 0 and bool(tail[at + 5 : at + 6] and tail[at + 5] & 4)


class Mp3Length(NamedTuple):
    """What the first frame of an MP3 file says.

    Attributes
    ----------
    length_s : float
    is_whole : bool
        Whether the file has as many bytes as it says, give or take 1 %.
    """

    length_s: float
    is_whole: bool


def mp3_length(path: str) -> Mp3Length | None:
    """Length that an MP3 file's Xing or VBRI header states; None if it has none."""
    with open(path, "rb") as file:
        size, at = file.seek(0, 2), 0
        while True:  # tags in front, whose length is written in seven bits a byte
            file.seek(at)
            head = file.read(10)
            if len(head) < 10 or not head.startswith(b"ID3"):
                break
            at += 10 + sum(
                (byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
            )
        file.seek(at)
        data = file.read(1 << 13)
    at += len(data)
    data = data.lstrip(b"\0")
    at -= len(data)
    if len(data) < 4 or not _is_frame(data):
        return None
    _, second, third, fourth = data[:4]
    version = second >> 3 & 3
    mpeg1, mono = version == 3, fourth >> 6 == 3
    rate = _MPEG_RATES[third >> 2 & 3] >> {3: 0, 2: 1, 0: 2}[version]  # MPEG 1, 2 and 2.5
    side_bytes = (17 if mono else 32) if mpeg1 else (9 if mono else 17)
    tag, vbri = data[4 + side_bytes :], data[36:]
    if tag[:4] in (b"Xing", b"Info") and len(tag) >= 16 and tag[7] & 1:
        frames, stated_bytes = _number(tag[8:12]), _number(tag[12:16]) if tag[7] & 2 else 0
    elif vbri[:4] == b"VBRI" and len(vbri) >= 18:
        frames, stated_bytes = _number(vbri[14:18]), 0  # libmpg123 knows nothing of it
    else:
        return None
    if not frames:
        return None
    is_whole = abs(size - at - stated_bytes) < 0.01 * stated_bytes
    return Mp3Length(frames * (1152 if mpeg1 else 576) / rate, is_whole)


def _is_frame(head: bytes) -> bool:
    """Whether bytes can begin a frame of MPEG audio, layer III."""
    return (
        head[0] == 0xFF
        and head[1] & 0xE6 == 0xE2
        and head[1] >> 3 & 3 != 1
        and head[2] >> 4 not in (0, 15)
        and head[2] >> 2 & 3 != 3
    )


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")
