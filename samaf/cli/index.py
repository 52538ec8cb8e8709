"""`samaf index`: everything that changes, shows or moves an index."""

from __future__ import annotations

import argparse
import os
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samaf.cli.common import (
    DONE,
    FAILED,
    add_db,
    add_json,
    bits,
    clock,
    complain,
    console,
    count,
    hop,
    plain,
    print_json,
    progress_bar,
)
from samaf.errors import StoreError, shown

if TYPE_CHECKING:
    from samaf.index import Index
    from samaf.ingest import Outcome

_EXAMPLES = """\
examples:
  samaf index add ~/Music                    again after a while: only what is new or has changed is read
  samaf index add --db radio.samafdb --bits 256 --hop 0.5 archive/
  samaf index remove 17 ~/Music/mistake.mp3
  samaf index stats
"""
_ADD_EXAMPLES = """\
examples:
  samaf index add ~/Music concert.flac       folders are searched to the bottom
  samaf index add prints/*.samaf             fingerprints made by `samaf encode` elsewhere
  samaf index add --json ~/Music > log.jsonl
"""


def add_parser(commands: Any) -> None:
    """Add the command and its subcommands to the command line."""
    parser = commands.add_parser(
        "index",
        help="add, remove, list, check and move recordings",
        description="Add recordings to an index, and look after it.",
        epilog=_EXAMPLES,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    def action(name: str, run: Any, short: str, epilog: str | None = None) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = actions.add_parser(
            name, help=short, description=short[0].upper() + short[1:] + ".", epilog=epilog
        )
        add_db(made)
        made.set_defaults(run=run)
        return made

    made = action("add", _add, "add files, folders and fingerprints; makes the index", _ADD_EXAMPLES)
    made.add_argument("paths", nargs="+", metavar="PATH", help="audio or fingerprint file, or folder")
    made.add_argument("--bits", type=bits, help="bits in a hash of a new index: 64, 128 or 256 (default 128)")
    made.add_argument(
        "--hop", type=hop, metavar="S", help="seconds from hash to hash of a new index (default 1.0)"
    )
    made.add_argument(
        "--model", metavar="FILE", help="weights of a new index (default: the model that ships)"
    )
    made.add_argument(
        "--jobs",
        type=count,
        metavar="N",
        help="files encoded at once (default: one for each processor it may use)",
    )
    add_json(made, "one JSON object per file on stdout, once it is stored for good")

    made = action("remove", _remove, "take recordings out")
    made.add_argument("tracks", nargs="+", metavar="TRACK", help="number of a track, or path of its file")

    add_json(action("list", _list, "list the recordings"))
    add_json(action("stats", _stats, "measure the index"))
    made = action("verify", _verify, "check every byte in use; exit status 2 if the index is damaged")
    made.add_argument(
        "--repair",
        metavar="NEW",
        help="write all recordings that are intact into a new index, and say what is lost",
    )
    add_json(made)

    made = action("compact", _compact, "purge removed recordings and give their space back")
    made.add_argument(
        "--in-place", action="store_true", help="keep the file's size: needs less room meanwhile"
    )

    made = action("export", _export, "write everything into one portable file")
    made.add_argument("file", metavar="FILE")

    made = action("import", _import, "add the recordings of a file that export wrote; known ones are skipped")
    made.add_argument("file", metavar="FILE")


def _db(args: argparse.Namespace) -> str | Path:
    if args.db is None:
        from samaf.places import default_db

        return default_db()
    return args.db


def _open(args: argparse.Namespace, *, readonly: bool) -> Index:
    from samaf.index import Index

    return Index.open(_db(args), readonly=readonly)


def _add(args: argparse.Namespace) -> int:
    missing = [path for path in args.paths if not os.path.lexists(path)]
    if len(missing) == len(args.paths):  # not even an empty index shall come of a slip of the hand
        for path in missing:
            complain(f"{path}: no such file or folder; check the name")
        return FAILED

    from samaf.library import Library

    def outcome(result: Outcome) -> None:
        for note in filter(None, (result.reason, result.warning)):
            complain(f"{result.path}: {note}")
        if args.json:
            print_json(result.to_json())

    with Library(args.db, writable=True, model=args.model, bits=args.bits, hop_s=args.hop) as library:
        bar = progress_bar("adding")
        with nullcontext() if bar.disable else bar:
            task = bar.add_task("", total=None)

            def progress(done: int, total: int, path: str) -> None:
                bar.update(task, completed=done, total=total, description=plain(os.path.basename(path)))

            report = library.add(
                args.paths,
                progress=None if bar.disable else progress,
                outcome=outcome,
                jobs=args.jobs,
            )
    console(stderr=True).print(
        f"added {report.added} recordings"
        + (f", updated {report.updated}" if report.updated else "")
        + f" ({clock(report.duration_s)})"
        + (f"; {report.skipped} were there already" if report.skipped else "")
        + (f"; {report.aliases} have the content of another file" if report.aliases else "")
        + (f"; [yellow]{len(report.warnings)} not whole[/]" if report.warnings else "")
        + (f"; [red]{len(report.failures)} failed[/]" if report.failures else "")
    )
    return FAILED if report.failures else DONE


def _remove(args: argparse.Namespace) -> int:
    failed = False
    with _open(args, readonly=False) as index:
        by_path: list[str] = []
        by_id: set[int] = set()
        for name in args.tracks:
            if index.find_path(name) is not None:
                by_path.append(name)
            elif name.isdecimal() and _known(index, int(name)):
                by_id.add(int(name))
            else:
                complain(f"{name}: no such track in index {shown(index.path)}; see `samaf index list`")
                failed = True
        removed = index.remove(by_id) if by_id else 0
        for name in by_path:
            removed += index.drop_path(name) is not None
    console(stderr=True).print(f"removed {removed}")
    return FAILED if failed else DONE


def _known(index: Index, track_id: int) -> bool:
    try:
        index.track(track_id)
    except StoreError:
        return False
    return True


def _list(args: argparse.Namespace) -> int:
    status = DONE

    def damaged(error: StoreError) -> None:
        nonlocal status
        status = FAILED
        complain(str(error))

    with _open(args, readonly=True) as index:
        if args.json:
            for track in index.tracks(damaged):
                print_json(track.to_json())
            return status
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("track", justify="right")
        table.add_column("title", overflow="fold")
        table.add_column("length", justify="right", no_wrap=True)
        table.add_column("file", overflow="fold", style="dim")
        for track in index.tracks(damaged):
            artist = track.tags.get("artist", "")
            files = [track.path, *(alias.path for alias in track.aliases)]
            table.add_row(
                str(track.track_id),
                plain(f"{artist} - {track.title}" if artist else track.title)
                + (f"\n[yellow]{plain(track.warning)}[/]" if track.warning else ""),
                clock(track.duration_s),
                "\n".join(map(plain, files)),
            )
        console().print(table)
    return status


def _stats(args: argparse.Namespace) -> int:
    with _open(args, readonly=True) as index:
        stats, path = index.stats(), index.path
    if args.json:
        print_json({"path": path, **stats.to_json()})
        return DONE
    header = stats.header
    rows = {
        "index": plain(path),
        "recordings": f"{stats.n_tracks:,}",
        "length": f"{stats.duration_s / 3600:,.2f} h",
        "hashes": f"{stats.n_hashes:,} of {header.bits} bits, one every {header.hop_s:g} s; "
        f"{stats.n_invalid:,} of silence; {stats.n_removed:,} removed recordings to be purged",
        "segments": f"{len(stats.segments)}",
        "size": f"{stats.file_bytes / 1e6:,.2f} MB, {stats.bytes_per_hour / 1000:,.1f} kB per hour",
        "model": plain(f"{header.model_path or header.model_name} ({header.model_id[:12]})"),
        "format": f"{header.format_version}",
    }
    for name, value in rows.items():
        console().print(f"[bold]{name:>10}[/]  {value}")
    return DONE


def _verify(args: argparse.Namespace) -> int:
    if args.repair is not None:
        return _repair(args)
    with _open(args, readonly=True) as index:
        report, path = index.verify(), index.path
    if args.json:
        print_json({"path": path, "ok": report.ok, **asdict(report)})
    elif report.ok:
        text = f"{report.n_tracks:,} recordings, {report.n_hashes:,} hashes, {report.n_segments} segments"
        console().print(f"{plain(path)}: whole ({text})")
    for problem in report.problems:
        complain(f"{path}: {problem}")
    return DONE if report.ok else FAILED


def _repair(args: argparse.Namespace) -> int:
    from samaf.index.repair import repair

    report = repair(_db(args), args.repair)
    for line in report.lost:
        complain(f"lost: {line}")
    if args.json:
        print_json({"path": os.path.abspath(args.repair), "ok": not report.lost, **asdict(report)})
    else:
        console().print(f"{plain(args.repair)}: {len(report.saved):,} recordings saved")
    return FAILED if report.lost else DONE


def _compact(args: argparse.Namespace) -> int:
    with _open(args, readonly=False) as index:
        before = index.stats().file_bytes
        index.compact(shrink=not args.in_place)
        after = index.stats().file_bytes
    console(stderr=True).print(f"{before / 1e6:,.2f} MB before, {after / 1e6:,.2f} MB after")
    return DONE


def _export(args: argparse.Namespace) -> int:
    with _open(args, readonly=True) as index:
        if os.path.exists(args.file) and os.path.samefile(args.file, index.path):
            raise StoreError(f"{shown(args.file)} is the index itself; export it to another file")
        index.export_to(args.file)
        n_tracks = index.stats().n_tracks
    size = Path(args.file).stat().st_size
    console(stderr=True).print(f"wrote {n_tracks} recordings, {size / 1e6:,.2f} MB")
    return DONE


def _import(args: argparse.Namespace) -> int:
    with _open(args, readonly=False) as index:
        report = index.import_from(args.file)
    known = f"; {report.n_skipped} were there already" if report.n_skipped else ""
    console(stderr=True).print(f"added {len(report.added)} recordings{known}")
    return DONE
