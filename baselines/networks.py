"""What systems share that hear through a trained network: where it lies, what tells it from others, how to get one.

A folder keeps a network: ``network.json`` says what it is and how it was trained, ``network.weights.h5`` holds its
weights. :mod:`baselines.training` writes both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from baselines.base import Baseline, Tables
from samaf.errors import ModelError, shown
from samaf.files import digest
from samaf.places import cache_folder

NETWORK = "network.json"
"""In a folder that keeps a trained network: what it is."""
WEIGHTS = "network.weights.h5"
"""In the same: its weights."""


def default_root() -> Path:
    """Where networks are kept if nobody says otherwise: ``networks`` in the user's cache folder of samaf."""
    cache = cache_folder()
    if cache is None:
        raise ModelError("this user has no home folder to keep networks in; name a folder with --weights")
    return cache / "networks"


class NetworkParameters(ABC):
    """What the parameters of such a system, a frozen dataclass, have besides their own.

    Attributes
    ----------
    weights : str
        Folder of trained networks; empty: where ``bench train`` puts them.
    """

    weights: str

    @property
    @abstractmethod
    def title(self) -> str:
        """The name of the network's folder."""

    @property
    @abstractmethod
    def command(self) -> str:
        """What to type to train the network."""

    @property
    def folder(self) -> Path:
        """Where the network lies.

        Raises
        ------
        ModelError
            If the user has no folder for it.
        """
        return (Path(self.weights) if self.weights else default_root()) / self.title

    @property
    def network(self) -> str:
        """SHA-256 of the network's weights, in hexadecimal digits."""
        return digest(self.folder / WEIGHTS)


class NetworkBaseline(Baseline):
    """A system that hears through a trained network."""

    parameters: NetworkParameters

    @classmethod
    def identity(cls, parameters: Any) -> dict[str, Any]:
        """With the network itself: trained anew, it is another system."""
        return {**super().identity(parameters), "network": parameters.network}

    @classmethod
    def check(cls, parameters: NetworkParameters) -> None:
        """Refuse a network that was never trained."""
        if not (parameters.folder / NETWORK).exists():
            raise ModelError(f"{shown(parameters.folder)}: no such network; train it: {parameters.command}")


def maker(network: str) -> Tables:
    """The table of a store that tells by its SHA-256 which network made the others."""
    return {"network": np.frombuffer(bytes.fromhex(network), np.uint8)}


def check_maker(tables: Tables, network: str, parameters: NetworkParameters) -> None:
    """Refuse a store that another network made."""
    if tables["network"].tobytes().hex() != network:
        raise ModelError(
            f"{shown(parameters.folder)}: was trained anew since this store was made; make it again"
        )
