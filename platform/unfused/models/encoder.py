"""The encoder of teacher and student: AudioNTT2020Task6 (BYOL-A, arXiv 2103.06695).

The rule of this room: every stage sees one encoder, one pooling and one meaning of a layer.

Axes: B clips, F mel bands, T frames, C channels, D embedding; F' and T' are F and T halved by each
block.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from unfused.models.dropout import Dropout
from unfused.models.first_block import FirstBlock

CHANNELS = 64
NUM_BLOCKS = 3
MIN_FRAMES = 2**NUM_BLOCKS
"""Shortest input, in frames: three blocks halve it."""
LAYERS = ("block1", "block2", "block3", "last")


class Features(NamedTuple):
    """What one pass through the encoder computes.

    Attributes:
        blocks: outputs (B, C, F', T') of the three convolution blocks.
        clip: (B, D), the clip vector.
    """

    blocks: tuple[Tensor, Tensor, Tensor]
    clip: Tensor


class AudioNTT(nn.Module):
    """Three convolution blocks, two fully connected layers per frame, max + mean over time.

    5,321,856 parameters with 64 mel bands and D 2048; 1,649,792 with 1024; 600,192 with 512.

    Args:
        n_mels: F, a multiple of 8.
        embedding_dim: D.
        dropout: between the fully connected layers, in [0, 1).

    Raises:
        ValueError: `n_mels` is not a multiple of 8.
    """

    def __init__(self, n_mels: int = 64, embedding_dim: int = 2048, dropout: float = 0.3) -> None:
        super().__init__()
        if n_mels < MIN_FRAMES or n_mels % MIN_FRAMES:
            raise ValueError(f"The encoder needs a multiple of {MIN_FRAMES} bands; got {n_mels}.")
        self.n_mels, self.embedding_dim = n_mels, embedding_dim
        others = (_block() for _ in range(NUM_BLOCKS - 1))
        self.blocks = nn.ModuleList([FirstBlock(CHANNELS), *others])
        self.frames = nn.Sequential(
            nn.Linear(self.block_widths[-1], embedding_dim),
            nn.ReLU(inplace=True),
            Dropout(dropout),
            nn.Linear(embedding_dim, embedding_dim),
            nn.ReLU(inplace=True),
        )

    @property
    def block_widths(self) -> tuple[int, int, int]:
        """Width C * F' of each block's vector: 2048, 1024 and 512 with 64 mel bands."""
        width = CHANNELS * self.n_mels
        return width // 2, width // 4, width // 8

    def width(self, layer: str) -> int:
        """Width of the embeddings of a layer, as `embed` has them."""
        if layer == "last":
            return self.embedding_dim
        return self.block_widths[LAYERS.index(layer)]

    def forward(self, x: Tensor) -> Features:
        """Encode normalised log-mel (B, 1, F, T); channels_last memory is the fast one.

        Raises:
            ValueError: another number of bands, or fewer than `MIN_FRAMES` frames.
        """
        first, second, third = blocks = self._run_blocks(x, NUM_BLOCKS)
        return Features((first, second, third), pool(self.frames(per_frame(blocks[-1]))))

    def embed(self, x: Tensor, layer: str = "last") -> Tensor:
        """The embedding of one layer, computed no further than needed.

        Args:
            x: normalised log-mel (B, 1, F, T).
            layer: "last" is the clip vector (B, D); "block1" to "block3" are `time_mean` of that
                block (B, C * F').

        Raises:
            ValueError: there is no such layer, or as in `forward`.
        """
        if layer not in LAYERS:
            raise ValueError(f"There is no layer {layer!r}; choose from {', '.join(LAYERS)}.")
        if layer == "last":
            return self(x).clip
        return time_mean(self._run_blocks(x, 1 + LAYERS.index(layer))[-1])

    def _run_blocks(self, x: Tensor, count: int) -> list[Tensor]:
        self._check(x)
        outputs = []
        for block in self.blocks[:count]:
            x = block(x)
            outputs.append(x)
        return outputs

    def _check(self, x: Tensor) -> None:
        if x.dim() != 4 or x.shape[1:3] != (1, self.n_mels) or x.shape[3] < MIN_FRAMES:
            raise ValueError(
                f"The encoder takes log-mel of shape (clips, 1, {self.n_mels}, {MIN_FRAMES} or more"
                f" frames); got {tuple(x.shape)}."
            )


def _block() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(CHANNELS, CHANNELS, kernel_size=3, padding=1),
        nn.BatchNorm2d(CHANNELS),
        # ReLU after the pooling gives the same values from a quarter of the work.
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
    )


def per_frame(block: Tensor) -> Tensor:
    """A block (B, C, F', T') as one vector per frame (B, T', F' * C), channels innermost."""
    return block.permute(0, 3, 2, 1).flatten(2)


def time_mean(block: Tensor) -> Tensor:
    """A block (B, C, F', T') as one vector (B, F' * C): the mean over time of `per_frame`."""
    # Channels innermost, as they lie in memory, so that the gradient lies there likewise.
    return block.permute(0, 2, 3, 1).mean(2).flatten(1)


def pool(frames: Tensor) -> Tensor:
    """(B, T, D) to the clip vector (B, D): max over time + mean over time."""
    return frames.amax(1) + frames.mean(1)
