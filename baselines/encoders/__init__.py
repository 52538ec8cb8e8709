"""Contrastively trained encoders: their features, networks, batches and training.

The way of the data: :mod:`~baselines.encoders.features` -> :mod:`~baselines.encoders.batches` ->
:mod:`~baselines.encoders.networks` -> :mod:`~baselines.encoders.training`, whose result
:mod:`~baselines.contrastive` puts behind the contract.
"""
