"""An encoder with a linear head: see `unfused.scorers.linear`.

Axes: B clips, C windows of one, S samples of a window, D embedding, N classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from unfused.config import ConfigError
from unfused.exporting.cutting import Windowed
from unfused.exporting.spectrum import PlainLogMel
from unfused.models.classifier import ClipClassifier
from unfused.models.clip_encoder import ClipEncoder
from unfused.scorers import ScorerFacts
from unfused.store import Folder


class EncodedWindows(nn.Module):
    """int16 numbers (B, S') to embeddings of windows (B, C, D), and which are no silence (B, C).

    Args:
        encoder: in eval mode.
        windowed: how clips are cut.
        layer: that is read.
    """

    def __init__(self, encoder: ClipEncoder, windowed: Windowed, layer: str = "last") -> None:
        super().__init__()
        self.layer = layer
        self.windowed, self.spectrum = windowed, PlainLogMel(encoder.log_mel)
        self.normalize, self.encoder = encoder.normalize, encoder.encoder

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        windows, sound = self.windowed(samples)
        # Those in silence are not encoded; in their places stand zeros, which nobody looks at.
        (kept,) = sound.flatten().nonzero(as_tuple=True)
        torch._check(kept.shape[0] >= 1)
        images = self.normalize(self.spectrum(windows.flatten(0, 1).index_select(0, kept)))
        found = self.encoder.embed(images[:, None], self.layer)
        rows = found.new_zeros(samples.shape[0] * windows.shape[1], found.shape[1])
        rows = rows.index_put((kept,), found)
        return rows.unflatten(0, (samples.shape[0], windows.shape[1])), sound


class Linear(nn.Module):
    """int16 numbers (B, S') to scores (B, N) and the mean embedding (B, D).

    Args:
        encoded: the encoder with its windows.
        head: D -> N.
        pooling: how the scores of a clip's windows become the clip's, one of `POOLINGS`.
    """

    def __init__(self, encoded: EncodedWindows, head: nn.Module, pooling: str) -> None:
        super().__init__()
        self.encoded, self.head, self.pooling = encoded, head, pooling

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        embeddings, sound = self.encoded(samples)
        weight = sound[..., None].float()
        return POOLINGS[self.pooling](self.head(embeddings), weight), mean(embeddings, weight)


def mean(values: Tensor, weight: Tensor) -> Tensor:
    """(B, C, D) and a weight (B, C, 1) of every window to the clip's (B, D)."""
    return (values * weight).sum(1) / weight.sum(1)


def maximum(scores: Tensor, sound: Tensor) -> Tensor:
    """The largest (B, N) over windows that are no silence."""
    return torch.where(sound > 0, scores, torch.full_like(scores, -torch.inf)).amax(1)


def attention(scores: Tensor, sound: Tensor) -> Tensor:
    """Their mean (B, N), each weighted by how sure it is."""
    return mean(scores, sound * scores.softmax(2).amax(2, keepdim=True))


POOLINGS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": mean,
    "max": maximum,
    "attention": attention,
}
"""Those of `models.pooling`: of scores of windows (B, C, N) and 1 for those that are no silence."""


def module(folder: Folder, facts: ScorerFacts, sample_rate: int) -> Linear:
    """See `unfused.exporting`."""
    one = ClipClassifier.load(folder)
    own = one.encoder.audio.sample_rate
    if own != sample_rate:
        raise ConfigError(
            f"The encoder takes {own} Hz and the export says {sample_rate}; name the rate that the"
            " clips were ingested with."
        )
    assert facts.cut is not None
    encoder = one.encoder.eval().for_inference()
    return Linear(EncodedWindows(encoder, Windowed(facts.cut)), one.head, facts.pooling)
