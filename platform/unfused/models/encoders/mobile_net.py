"""A small encoder for devices: depthwise-separable, after MobileNetV3 (arXiv 1905.02244).

Inverted residuals, squeeze-and-excitation and hard-swish are the paper's; the table of blocks is
made for spectrograms, which are halved four times where pictures are halved five times, and the
bands that are left stay apart until the layers that see one frame each.

The rule of this file: every convolution has its batch norm right behind it, so that all of them can
be folded away once the encoder is trained.

Axes: B clips, F mel bands, T frames, C channels, D embedding; F' and T' are F and T halved (rounded
up) as often as a stage says.
"""

from __future__ import annotations

import copy
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from unfused.config import EncoderConfig, Width

LAYERS = ("stage1", "stage2", "stage3", "last")


class Config(EncoderConfig):
    kind: Literal["mobile_net"] = "mobile_net"
    """Depthwise-separable convolutions, for devices."""
    embedding_dim: Width = 512
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Dropout in the encoder's fully connected part."""
    layers: ClassVar[tuple[str, ...]] = LAYERS
    band_multiple: ClassVar[int] = 8
    min_frames: ClassVar[int] = 32
    """So that a lone clip still has two frames at the end: batch norm needs two values."""


from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unfused.models import fast_dropout
from unfused.models.encoders.protocol import BlockEncoder

STEM = 16
SQUEEZE = 4
"""Channels for each channel of the bottleneck that weighs them."""


class Block(NamedTuple):
    """One inverted residual, as a row of the paper's table 2.

    Attributes:
        kernel: side of the depthwise kernel.
        expanded: channels that it filters.
        channels: of the output, C.
        squeeze: whether the filtered channels are weighed.
        activation: what follows the batch norms, but for the last.
        stride: 2 halves F and T, rounded up.
    """

    kernel: int
    expanded: int
    channels: int
    squeeze: bool
    activation: type[nn.Module]
    stride: int


STAGES = (
    (Block(3, 64, 24, False, nn.ReLU, 2), Block(3, 72, 24, False, nn.ReLU, 1)),
    (Block(5, 96, 40, True, nn.Hardswish, 2), Block(5, 160, 40, True, nn.Hardswish, 1)),
    (Block(5, 240, 80, True, nn.Hardswish, 2), Block(5, 320, 80, True, nn.Hardswish, 1)),
)
"""C is 24, 40 and 80; with the stem's, F and T are halved 2, 3 and 4 times."""


class MobileNet(BlockEncoder):
    """A stem and three stages of inverted residuals, two fully connected layers per frame, max +
    mean over time.

    656,580 parameters with 64 mel bands and D 512; 377,540 with 256.

    Args:
        n_mels: F, a multiple of 8.
        embedding_dim: D.
        dropout: between the fully connected layers, in [0, 1).

    Raises:
        ValueError: `n_mels` is not a multiple of 8.
    """

    layers, band_multiple, min_frames = LAYERS, Config.band_multiple, Config.min_frames

    def __init__(self, n_mels: int = 64, embedding_dim: int = 512, dropout: float = 0.1) -> None:
        super().__init__(n_mels, embedding_dim)
        stem = ConvNorm(1, STEM, kernel=3, stride=2, activation=nn.Hardswish)
        inputs = (STEM, *(stage[-1].channels for stage in STAGES))
        stages = [_stage(channels, rows) for channels, rows in zip(inputs, STAGES, strict=False)]
        stages[0].insert(0, stem)
        self.blocks = nn.ModuleList(stages)
        self.frames = nn.Sequential(
            nn.Linear(self.width(LAYERS[-2]), embedding_dim),
            nn.Hardswish(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(embedding_dim, embedding_dim),
            nn.Hardswish(inplace=True),
        )
        fast_dropout.swap_in(self.frames)

    def width(self, layer: str) -> int:
        """D, or C * F' of a stage: 384, 320 and 320 with 64 mel bands."""
        if layer == "last":
            return self.embedding_dim
        stage = LAYERS.index(layer)
        halved = 2 ** (2 + stage)
        return STAGES[stage][-1].channels * -(-self.n_mels // halved)

    def for_inference(self) -> MobileNet:
        """The same outputs as in eval mode, with every batch norm folded into its convolution."""
        folded = copy.deepcopy(self).eval()
        for module in folded.modules():
            if isinstance(module, ConvNorm):
                module.fold()
        return folded


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and activation: (B, C, F, T) to (B, C', F', T').

    Args:
        inputs: C.
        outputs: C'.
        kernel: side of the kernel.
        stride: 2 halves F and T, rounded up.
        groups: as many as channels for a depthwise convolution.
        activation: what follows the batch norm, if anything.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module] = nn.Identity,
    ) -> None:
        super().__init__(
            nn.Conv2d(
                inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
            ),
            nn.BatchNorm2d(outputs),
            activation(),
        )

    def fold(self) -> None:
        """Make the batch norm, in eval mode, a part of the convolution."""
        conv, norm, _ = self
        self[0], self[1] = fuse_conv_bn_eval(conv, norm), nn.Identity()


class SqueezeExcite(nn.Module):
    """Every channel times a weight in [0, 1] that the means of all channels decide (section 5.3).

    Args:
        channels: C of the map (B, C, F, T), before and after.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.Conv2d(channels, channels // SQUEEZE, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // SQUEEZE, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weigh(x.mean((2, 3), keepdim=True))


class InvertedResidual(nn.Module):
    """Widen, filter every channel by itself, narrow; added to the input where shapes allow it.

    Args:
        inputs: channels of the input.
        row: the block's line in the table.
    """

    def __init__(self, inputs: int, row: Block) -> None:
        super().__init__()
        act, wide = row.activation, row.expanded
        self.steps = nn.Sequential(
            ConvNorm(inputs, wide, activation=act),
            ConvNorm(wide, wide, kernel=row.kernel, stride=row.stride, groups=wide, activation=act),
            SqueezeExcite(wide) if row.squeeze else nn.Identity(),
            ConvNorm(wide, row.channels),
        )
        self.residual = row.stride == 1 and inputs == row.channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.steps(x) if self.residual else self.steps(x)


def build(config: Config, n_mels: int) -> MobileNet:
    """See `unfused.models.encoders.build`."""
    return MobileNet(n_mels, config.embedding_dim, config.dropout)


def _stage(inputs: int, rows: tuple[Block, ...]) -> nn.Sequential:
    """Blocks one after the other, the first from `inputs` channels."""
    channels = (inputs, *(row.channels for row in rows))
    return nn.Sequential(
        *(InvertedResidual(count, row) for count, row in zip(channels, rows, strict=False))
    )
