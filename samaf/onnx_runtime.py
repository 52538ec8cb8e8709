"""onnxruntime, loaded without its telemetry: what uses it takes it from here.

Left to itself it looks up a host on the net as it is loaded, and keeps a number for the device in the cache folder. Its
``disable_telemetry_events()`` comes too late for both. It reads the first of these names, its documentation gives the
second. Whoever has set them already keeps what they set.
"""

from __future__ import annotations

import os

for _name in ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"):
    os.environ.setdefault(_name, "1")

import onnxruntime  # noqa: E402

__all__ = ["onnxruntime"]
