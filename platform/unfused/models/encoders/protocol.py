"""What every encoder offers, whatever it is inside.

The rule of this file: nobody outside an encoder's own file knows how many layers it has or how wide
they are; they ask `layers` and `width`.

Axes: B clips, F mel bands, T frames, C channels, D embedding; F' and T' are what a layer leaves of
F and T.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class Features(NamedTuple):
    """What one pass through an encoder computes.

    Attributes:
        shallow: a map (B, C, F', T') for every layer but the last, shallow ones first; may be none.
        clip: (B, D), the clip vector.
    """

    shallow: tuple[Tensor, ...]
    clip: Tensor


class Encoder(nn.Module):
    """Normalised log-mel (B, 1, F, T) to features.

    Args:
        n_mels: F, a multiple of `band_multiple`.
        embedding_dim: D.

    Attributes:
        layers: names, shallow ones first; "last" is the clip vector and stands at the end.
        min_frames: smallest T.
        band_multiple: F is a multiple of it.

    Raises:
        ValueError: the number of bands does not suit.
    """

    layers: tuple[str, ...] = ("last",)
    min_frames: int = 1
    band_multiple: int = 1

    def __init__(self, n_mels: int, embedding_dim: int) -> None:
        super().__init__()
        if n_mels < 1 or n_mels % self.band_multiple:
            raise ValueError(
                f"The encoder needs a multiple of {self.band_multiple} bands; got {n_mels}."
            )
        self.n_mels, self.embedding_dim = n_mels, embedding_dim

    def width(self, layer: str) -> int:
        """Width of the embeddings of a layer, as `embed` has them."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Features:
        """Encode normalised log-mel (B, 1, F, T); channels_last memory is the fast one.

        Raises:
            ValueError: another number of bands, or fewer than `min_frames` frames.
        """
        raise NotImplementedError

    def embed(self, x: Tensor, layer: str = "last") -> Tensor:
        """The embedding of one layer; encoders that can compute it no further than needed.

        Args:
            x: normalised log-mel (B, 1, F, T).
            layer: "last" is the clip vector (B, D); any other is the `time_mean` of its map, (B,
                C * F').

        Raises:
            ValueError: there is no such layer, or as in `forward`.
        """
        self.check_layer(layer)
        features = self(x)
        if layer == "last":
            return features.clip
        return time_mean(features.shallow[self.layers.index(layer)])

    def for_inference(self) -> Encoder:
        """An encoder with the same outputs in eval mode that is cheaper to run; here itself.

        What another one returns shares nothing with this one, and is not for training or saving.
        """
        return self

    def check_layer(self, layer: str) -> None:
        """Refuse a layer that is not there."""
        if layer not in self.layers:
            raise ValueError(f"There is no layer {layer!r}; choose from {', '.join(self.layers)}.")

    def check(self, x: Tensor) -> None:
        """Refuse an input of another shape than (B, 1, F, `min_frames` or more)."""
        if x.dim() != 4 or x.shape[1:3] != (1, self.n_mels) or x.shape[3] < self.min_frames:
            raise ValueError(
                f"The encoder takes log-mel of shape (clips, 1, {self.n_mels}, {self.min_frames} or"
                f" more frames); got {tuple(x.shape)}."
            )


class BlockEncoder(Encoder):
    """Blocks one after the other, then every frame by itself, then max + mean over time.

    Attributes:
        blocks: maps to maps, one for every layer but the last.
        frames: the last block's vectors (B, T', F' * C) to (B, T', D).
    """

    blocks: nn.ModuleList
    frames: nn.Module

    def forward(self, x: Tensor) -> Features:
        maps = self._run_blocks(x, len(self.blocks))
        return Features(tuple(maps), pool(self.frames(per_frame(maps[-1]))))

    def embed(self, x: Tensor, layer: str = "last") -> Tensor:
        self.check_layer(layer)
        if layer == "last":
            return self(x).clip
        return time_mean(self._run_blocks(x, 1 + self.layers.index(layer))[-1])

    def _run_blocks(self, x: Tensor, count: int) -> list[Tensor]:
        self.check(x)
        outputs = []
        for block in self.blocks[:count]:
            x = block(x)
            outputs.append(x)
        return outputs


def per_frame(block: Tensor) -> Tensor:
    """A map (B, C, F', T') as one vector per frame (B, T', F' * C), channels innermost."""
    return block.permute(0, 3, 2, 1).flatten(2)


def time_mean(block: Tensor) -> Tensor:
    """A map (B, C, F', T') as one vector (B, F' * C): the mean over time of `per_frame`."""
    # Channels innermost, as they lie in memory, so that the gradient lies there likewise.
    return block.permute(0, 2, 3, 1).mean(2).flatten(1)


def pool(frames: Tensor) -> Tensor:
    """(B, T, D) to the clip vector (B, D): max over time + mean over time."""
    return frames.amax(1) + frames.mean(1)
