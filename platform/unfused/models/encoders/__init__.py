"""Encoders: one file each, one protocol.

The rule of this room: a file here, apart from `protocol`, is a kind of encoder: its settings
(`Config`), its module, and `build(config, n_mels)`. A new kind is one new file and no more.
"""

from __future__ import annotations

from unfused.config import EncoderConfig
from unfused.config.choices import plugin
from unfused.models.encoders.protocol import BlockEncoder, Encoder, Features, time_mean


def build(settings: EncoderConfig, n_mels: int) -> Encoder:
    """The encoder that `settings` describes, with random weights.

    Args:
        settings: of one kind.
        n_mels: F, a multiple of the kind's `band_multiple`.

    Raises:
        ValueError: the number of bands does not suit it.
    """
    return plugin(settings.room, settings.kind).build(settings, n_mels)


__all__ = ["BlockEncoder", "Encoder", "Features", "build", "time_mean"]
