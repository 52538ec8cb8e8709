"""What the files that samaf writes are called, and what they begin with. Imports nothing."""

from __future__ import annotations

FINGERPRINT_SUFFIX = ".samaf"
"""Ending of the name of a saved fingerprint."""
FINGERPRINT_MAGIC = b"SAMAFP"
"""A saved fingerprint begins with it."""

INDEX_SUFFIX = ".samafdb"
"""Ending of the name of an index, where nobody gives another."""
FORMER_INDEX_SUFFIX = FINGERPRINT_SUFFIX
"""What indexes were called before they had an ending of their own."""
LMDB_MAGIC, LMDB_MAGIC_AT = 0xBEEFC0DE, 16
"""An index has this number, uint32 in the machine's order, at this byte."""

EXPORT_MAGIC = b"SAMAFIDX"
"""An exported index begins with it."""

WEIGHTS_SUFFIX = ".npz"
"""Ending of the name of a weights file."""
