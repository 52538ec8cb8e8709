"""samaf: audio fingerprinting with a sequence-to-sequence autoencoder.

The public names are imported on first use, so that `import samaf` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from samaf.errors import (
    AudioError,
    FingerprintError,
    LockedError,
    MismatchError,
    ModelError,
    SamafError,
    ServiceError,
    StoreError,
)

if TYPE_CHECKING:
    from samaf.audio import read_audio
    from samaf.client import AsyncClient, Client
    from samaf.encoder import Encoder
    from samaf.fingerprint import Fingerprint
    from samaf.index import Index
    from samaf.library import Library
    from samaf.match import Match, Matches

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "AudioError",
    "Client",
    "Encoder",
    "Fingerprint",
    "FingerprintError",
    "Index",
    "Library",
    "LockedError",
    "Match",
    "Matches",
    "MismatchError",
    "ModelError",
    "SamafError",
    "ServiceError",
    "StoreError",
    "__version__",
    "read_audio",
]

_HOME = {
    "AsyncClient": "samaf.client",
    "Client": "samaf.client",
    "Encoder": "samaf.encoder",
    "Fingerprint": "samaf.fingerprint",
    "Index": "samaf.index",
    "Library": "samaf.library",
    "Match": "samaf.match",
    "Matches": "samaf.match",
    "read_audio": "samaf.audio",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'samaf' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
