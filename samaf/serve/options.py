"""What a service is started with. Imports nothing heavy: the processes pass it on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from samaf.isolated import AudioBounds


@dataclass(frozen=True)
class Token:
    """What a caller proves who he is with; only a digest of it is kept.

    Attributes
    ----------
    name : str
        For the log.
    digest : bytes
        SHA-256.
    writes : bool
        Whether it allows changes.
    """

    name: str
    digest: bytes
    writes: bool


@dataclass(frozen=True)
class Bounds:
    """What requests may take, all workers together.

    Attributes
    ----------
    n_bytes : int
        Of an upload.
    clip, recording : AudioBounds
        Of audio that is searched for, and that is added.
    requests, requests_per_client : int
        Requests that are worked on at once.
    """

    n_bytes: int
    clip: AudioBounds
    recording: AudioBounds
    requests: int
    requests_per_client: int


@dataclass(frozen=True)
class Options:
    """How a service runs.

    Attributes
    ----------
    db : Path
        The index, absolute.
    folder : Path
        Made for this run, and for nobody else to see: uploads on their way, the writer's socket, metrics, bounds.
    bounds : Bounds
    model : str, optional
        The model of the index, if its file has moved.
    tokens : tuple of Token
        None: everybody may read.
    open_to_all : bool
        Everybody may write, too.
    hosts : tuple of str
        Names that the service goes by, besides addresses.
    origins : tuple of str
        Whose pages may call it, besides its own.
    allowed : tuple of Path
        Folders whose files may be added by name.
    tls : tuple of str, optional
        Files of the certificate and of its key.
    """

    db: Path
    folder: Path
    bounds: Bounds
    model: str | None = None
    tokens: tuple[Token, ...] = ()
    open_to_all: bool = False
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    allowed: tuple[Path, ...] = ()
    tls: tuple[str, str] | None = None

    @property
    def writable(self) -> bool:
        """Whether anybody may change the index."""
        return self.open_to_all or any(token.writes for token in self.tokens)

    @property
    def uploads(self) -> Path:
        """Where uploaded recordings are kept: beside the index, as long as their tracks are in it."""
        return self.db.with_name(self.db.name + ".uploads")

    @property
    def spool(self) -> Path:
        """Where uploads lie while they are received and searched for."""
        return self.folder / "spool"

    @property
    def metrics(self) -> Path:
        """Where the workers' counters lie."""
        return self.folder / "metrics"

    @property
    def slots(self) -> Path:
        """The table of the requests that are worked on."""
        return self.folder / "slots"

    @property
    def writer(self) -> Path:
        """The writer's socket."""
        return self.folder / "writer"
