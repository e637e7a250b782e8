"""Small heads on top of the encoder's vectors.

The rule of this room: a head takes a vector (B, D) and knows nothing of where it comes from.

Axes: B clips, D embedding, N classes.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


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
    """One linear layer: (B, D) -> scores (B, N).

    Args:
        embedding_dim: D.
        num_classes: N.
    """

    def __init__(self, embedding_dim: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(embedding_dim, num_classes)

    def forward(self, embedding: Tensor) -> Tensor:
        return self.linear(embedding)
