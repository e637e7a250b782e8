"""The student's heads: one deep, one for each shallow layer, all over the pseudo-labels.

The rule of this room: heads learn from the encoder's features and are thrown away after
distillation, so nothing here is needed to use the student.

Axes: B clips, D embedding, K clusters.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from unfused.models.encoders import Encoder, Features, time_mean


class Logits(NamedTuple):
    """Scores over the pseudo-labels.

    Attributes:
        deep: (B, K), from the clip vector.
        shallow: (B, K) from each layer of the encoder but the last; may be none.
    """

    deep: Tensor
    shallow: tuple[Tensor, ...]


class StudentHeads(nn.Module):
    """Linear on the clip vector; linear, ReLU, linear on the time-mean of each shallow layer.

    As published the hidden layer is as wide as k, which leaves two units for two clusters and
    millions of parameters for a thousand; a fixed width does neither.

    Args:
        encoder: the encoder whose features the heads will see; only its widths are read.
        num_clusters: K, at least 2.
        head_width: of the shallow heads' hidden layer; None is as published, K.

    Raises:
        ValueError: fewer than two clusters.
    """

    def __init__(self, encoder: Encoder, num_clusters: int, head_width: int | None) -> None:
        super().__init__()
        if num_clusters < 2:
            raise ValueError(f"A student needs at least 2 clusters; got {num_clusters}.")
        self.deep = nn.Linear(encoder.embedding_dim, num_clusters)
        width = head_width or num_clusters
        self.shallow = nn.ModuleList(
            _shallow_head(encoder.width(layer), width, num_clusters)
            for layer in encoder.layers[:-1]
        )

    def forward(self, features: Features) -> Logits:
        vectors = (time_mean(each) for each in features.shallow)
        shallow = (head(x) for head, x in zip(self.shallow, vectors, strict=True))
        return Logits(self.deep(features.clip), tuple(shallow))


def _shallow_head(inputs: int, width: int, num_clusters: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, num_clusters))
