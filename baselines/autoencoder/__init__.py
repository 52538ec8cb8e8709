"""The U-Net autoencoder of Singh (2025): its spectrograms, clips, network, training, and the way back to samples.

The way of the data: :mod:`~baselines.autoencoder.clips` -> :mod:`~baselines.autoencoder.features` ->
:mod:`~baselines.autoencoder.network` -> :mod:`~baselines.autoencoder.training`, whose result :mod:`~baselines.unet`
puts behind the contract; :mod:`~baselines.autoencoder.reconstruction` makes samples of spectrograms.
"""

from __future__ import annotations

FRONT_ENDS = ("16k", "paper")
"""Spectrograms of audio at 16 kHz, and at 48 kHz as the article has them."""
FEATURES = ("normalised", "plain")
"""Each band of a spectrogram brought to mean 0 and spread 1, or left as it is."""
