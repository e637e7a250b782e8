"""AudioNTT2020Task6, the encoder of BYOL-A (arXiv 2103.06695): three blocks and wide frames.

The rule of this file: it computes what was published; what is clever is swapped in at the end.

Axes: B clips, F mel bands, T frames, C channels, D embedding; each block halves F and T.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from unfused.config import EncoderConfig, Width

LAYERS = ("block1", "block2", "block3", "last")


class Config(EncoderConfig):
    kind: Literal["audio_ntt"] = "audio_ntt"
    """Encoder: three convolution blocks and two wide layers per frame (BYOL-A's)."""
    embedding_dim: Width = 2048
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Dropout in the encoder's fully connected part."""
    layers: ClassVar[tuple[str, ...]] = LAYERS
    band_multiple: ClassVar[int] = 8
    min_frames: ClassVar[int] = 8


from torch import nn

from unfused.models import fast_dropout
from unfused.models.encoders.protocol import BlockEncoder

CHANNELS = 64
NUM_BLOCKS = 3


class AudioNTT(BlockEncoder):
    """Three convolution blocks, two fully connected layers per frame, max + mean over time.

    5,321,856 parameters with 64 mel bands and D 2048; 1,649,792 with 1024; 600,192 with 512.

    Args:
        n_mels: F, a multiple of 8.
        embedding_dim: D.
        dropout: between the fully connected layers, in [0, 1).

    Raises:
        ValueError: `n_mels` is not a multiple of 8.
    """

    layers, band_multiple, min_frames = LAYERS, Config.band_multiple, Config.min_frames

    def __init__(self, n_mels: int = 64, embedding_dim: int = 2048, dropout: float = 0.3) -> None:
        super().__init__(n_mels, embedding_dim)
        inputs = (1, *[CHANNELS] * (NUM_BLOCKS - 1))
        self.blocks = nn.ModuleList(_block(channels) for channels in inputs)
        self.frames = nn.Sequential(
            nn.Linear(self.width(LAYERS[NUM_BLOCKS - 1]), embedding_dim),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(embedding_dim, embedding_dim),
            nn.ReLU(inplace=True),
        )
        fast_dropout.swap_in(self.frames)

    def width(self, layer: str) -> int:
        """D, or C * F' of a block: 2048, 1024 and 512 with 64 mel bands."""
        if layer == "last":
            return self.embedding_dim
        return CHANNELS * self.n_mels // 2 ** (1 + LAYERS.index(layer))


def build(config: Config, n_mels: int) -> AudioNTT:
    """See `unfused.models.encoders.build`."""
    return AudioNTT(n_mels, config.embedding_dim, config.dropout)


def _block(channels: int) -> nn.Sequential:
    """(B, channels, F, T) to (B, C, F/2, T/2), rounded down."""
    return nn.Sequential(
        nn.Conv2d(channels, CHANNELS, kernel_size=3, padding=1),
        nn.BatchNorm2d(CHANNELS),
        # ReLU after the pooling gives the same values from a quarter of the work.
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
    )
