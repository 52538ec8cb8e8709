"""Systems to compare, built from their papers, behind the one contract of :mod:`baselines.base`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from baselines.base import Baseline

SYSTEMS = {
    "samaf": "baselines.engine:Samaf",
    "dejavu": "baselines.dejavu:Dejavu",
    "rafs": "baselines.rafs:Rafs",
    "panako": "baselines.panako:Panako",
    "contrastive": "baselines.contrastive:Contrastive",
    "signs": "baselines.signs:Signs",
    "unet": "baselines.unet:UNet",
}
"""Name -> where its class is; imported only when it is asked for."""


def system(name: str) -> type[Baseline]:
    """The class of the system with this name.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in SYSTEMS:
        raise ValueError(f"no system is called {name!r}; there are {', '.join(SYSTEMS)}")
    module, _, attribute = SYSTEMS[name].partition(":")
    found: type[Baseline] = getattr(import_module(module), attribute)
    return found
