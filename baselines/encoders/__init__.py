"""Contrastively trained encoders: their features, networks, batches and training.

The way of the data: :mod:`~baselines.encoders.features` -> :mod:`~baselines.encoders.batches` ->
:mod:`~baselines.encoders.networks` -> :mod:`~baselines.encoders.training`, whose result
:mod:`~baselines.contrastive` puts behind the contract.
"""

from __future__ import annotations

ENCODERS = ("connected", "cnn", "lstm", "attention-cnn", "attention-lstm", "resnet")
"""Fully connected, separable CNN, LSTM, attention + separable CNN, attention + LSTM, attention + ResNet."""
PROJECTIONS = ("divided", "connected")
"""Divide and encode, and a fully connected layer in its place."""
