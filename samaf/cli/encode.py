"""`samaf encode`: fingerprints as files, or as JSON."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samaf import settings
from samaf.cli.common import DONE, FAILED, add_json, bits, complain, hop, print_json
from samaf.errors import AudioError, FingerprintError, shown
from samaf.formats import FINGERPRINT_MAGIC, FINGERPRINT_SUFFIX
from samaf.places import make_folder

if TYPE_CHECKING:
    from samaf.fingerprint import Fingerprint

_EXAMPLES = """\
examples:
  samaf encode song.flac                            writes song.samaf, which `samaf index add` takes
  samaf encode clips/*.wav -o prints/ --hop 0.1 --confidence     queries for `samaf search`
  samaf encode song.flac --json                     hashes in hexadecimal
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "encode",
        help="fingerprint audio into files",
        description="Fingerprint audio files. Fingerprints are small, say nothing about how the audio sounds, and "
        "serve `samaf index add` and `samaf search` in place of the audio.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio file")
    parser.add_argument(
        "--bits",
        type=bits,
        default=settings.BITS,
        help="bits in a hash: 64, 128 or 256 (default %(default)s)",
    )
    parser.add_argument(
        "--hop",
        type=hop,
        default=settings.REFERENCE_HOP_S,
        metavar="S",
        help="seconds from hash to hash (default %(default)s)",
    )
    parser.add_argument("--model", metavar="FILE", help="weights file (default: the model that ships)")
    parser.add_argument(
        "--confidence",
        action="store_true",
        help="make a query for `samaf search`: keep each bit's confidence, and windows that overhang the ends",
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="OUT",
        help="folder, or file if there is one input (default: the current folder)",
    )
    add_json(parser, "print the hashes as JSON instead, one object per file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Encode all files; those that cannot be read are passed over."""
    targets: list[Path | None] = [None] * len(args.files)
    if not args.json or args.out:
        targets = list(_targets([Path(file) for file in args.files], args.out))

    from samaf.isolated import IsolatedStream, prepare

    prepare()  # a child starts while this process loads what follows
    from samaf.encoder import Encoder

    encoder = Encoder(args.model, bits=args.bits)
    failed = False
    for file, target in zip(args.files, targets, strict=True):
        try:
            stream = IsolatedStream(file)
            print_ = encoder.encode_stream(
                stream,
                hop_s=args.hop,
                confidence=args.confidence,
                overhang=args.confidence,
                name=shown(file),
            )
            if target is not None:
                print_.save(target)
        except (AudioError, FingerprintError) as error:
            complain(str(error))
            failed = True
            continue
        if stream.warning:
            complain(f"{file}: {stream.warning}")
        if args.json:
            print_json({**_record(file, print_), **({"warning": stream.warning} if stream.warning else {})})
    return FAILED if failed else DONE


def _targets(files: list[Path], out: str | None) -> list[Path]:
    """Where each input's fingerprint goes; two never go to one place, and nothing else is overwritten."""
    folder = Path(out) if out is not None else Path()
    if len(files) == 1 and out is not None and not folder.is_dir() and not out.endswith(("/", os.sep)):
        targets = [folder]
        folder = folder.parent
    else:
        targets = [folder / (file.stem + FINGERPRINT_SUFFIX) for file in files]
    taken: dict[Path, Path] = {}
    for file, target in zip(files, targets, strict=True):
        if target in taken:
            raise FingerprintError(
                f"{shown(taken[target])} and {shown(file)} would both become {shown(target)}; "
                "encode them in two calls, into different folders"
            )
        taken[target] = file
        _spare(target)
    try:
        make_folder(folder)
    except OSError as error:
        raise FingerprintError(
            f"{shown(folder)}: cannot be made a folder ({error.strerror}); name another with -o"
        ) from None
    return targets


def _spare(target: Path) -> None:
    """Refuse to overwrite what is no fingerprint: a slip of the hand must not cost an index or a song."""
    if os.path.exists(target) and not os.path.isfile(target):  # to read from a pipe would be to wait for ever
        raise FingerprintError(f"{shown(target)}: is no regular file; name another file with -o")
    try:
        with open(target, "rb") as file:
            if file.read(len(FINGERPRINT_MAGIC)) == FINGERPRINT_MAGIC:
                return
    except FileNotFoundError:
        return
    except OSError as error:
        raise FingerprintError(
            f"{shown(target)}: cannot be replaced ({error.strerror}); name another"
        ) from None
    raise FingerprintError(f"{shown(target)}: exists and is no fingerprint; name another file with -o")


def _record(file: str, print_: Fingerprint) -> dict[str, Any]:
    record = {
        "file": file,
        "bits": print_.bits,
        "hop_s": print_.hop_s,
        "duration_s": print_.duration_s,
        "model_id": print_.model_id,
        "hashes": print_.hex(),
        "valid": print_.valid.tolist(),
    }
    if print_.known is not None:
        record["start_s"] = round(print_.start_s, 4)
        record["known"] = [round(x, 4) for x in print_.known.tolist()]
    if print_.confidence is not None:
        record["confidence"] = [[round(x, 4) for x in row] for row in print_.confidence.tolist()]
    return record
