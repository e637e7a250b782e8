"""Small heads on top of the encoder's vectors.

The rule of this room: a head takes a vector (B, D) and knows nothing of where it comes from.

Axes: B clips, D embedding, N classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

POWER_FLOOR = 1e-3
"""Embeddings are of the order of 1; below this the power is close to linear."""


class Projector(nn.Sequential):
    """Linear, batch norm, ReLU, linear: (B, in_dim) -> (B, out_dim).

    Args:
        in_dim: width of the embedding.
        hidden_dim: of the hidden layer.
        out_dim: of the projection.
    """

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__(
            nn.Linear(in_dim, hidden_dim, bias=False),
            BatchNorm(hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, out_dim),
        )


class BatchNorm(nn.BatchNorm1d):
    """Batch norm that uses its running statistics for a lone row, which has no variance.

    A worker's share of the last batch may be one clip or none.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) < 2:
            return functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


class LinearClassifier(nn.Module):
    """Signed power normalisation and one linear layer: (B, D) -> scores (B, N).

    The layer starts at zero: with a few dozen labels and thousands of features, random weights
    would stay as noise in all directions that no labelled clip has.

    The power evens out the few large values of a max-pooled embedding (Perronnin et al., "Improving
    the Fisher kernel", ECCV 2010); 1 leaves the embedding as it is. It is saved with the weights.

    Args:
        embedding_dim: D.
        num_classes: N.
        power: exponent, in (0, 1].

    Raises:
        ValueError: `power` is outside (0, 1].
    """

    power: Tensor

    def __init__(self, embedding_dim: int, num_classes: int, power: float = 1.0) -> None:
        super().__init__()
        if not 0 < power <= 1:
            raise ValueError(f"The exponent of the embedding is in (0, 1]; got {power:g}.")
        self.register_buffer("power", torch.tensor(float(power)))
        self.linear = nn.Linear(embedding_dim, num_classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def normalize(self, embedding: Tensor) -> Tensor:
        """sign(x) ((|x| + e)^power - e^power): its slope at 0 is finite."""
        magnitude = (embedding.abs() + POWER_FLOOR).pow(self.power) - POWER_FLOOR**self.power
        return embedding.sign() * magnitude

    def forward(self, embedding: Tensor) -> Tensor:
        return self.linear(self.normalize(embedding))
