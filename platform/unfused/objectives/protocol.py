"""What the training loop asks of every pre-training objective.

The rule of this room: with several workers an objective's value is that of the whole batch, the
same on all workers, and its gradient flows through this worker's clips alone, so that the sum over
workers of the parameters' gradients is the gradient of the whole batch.

Axes: B clips of this worker (0 or more, not the same on all), D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Objective(nn.Module):
    """A loss over two views of the same clips, and whatever it remembers of them.

    Attributes:
        symmetric: both views get gradients; false: the first is encoded without.
        needs_initial_pass: `observe` wants every clip once before the first epoch.
    """

    symmetric: bool = True
    needs_initial_pass: bool = False

    def forward(self, first: Tensor, second: Tensor, clip: Tensor) -> Tensor:
        """The loss of the whole batch, a scalar.

        Args:
            first: (B, D) embeddings of the first view, float32.
            second: (B, D) of the second.
            clip: (B,) int64, index of each clip among all N.
        """
        raise NotImplementedError

    def observe(self, first: Tensor, clip: Tensor) -> None:
        """See embeddings (B, D) of clips (B,) in the pass before the first epoch."""

    def start_epoch(self, epoch: int) -> dict[str, float]:
        """Called on all workers before every epoch; may return metrics, the same on all."""
        return {}

    @property
    def rank_bytes(self) -> int:
        """Size of `rank_state`: worth telling a user before a long run."""
        return sum(tensor.nbytes for tensor in self.rank_state().values())

    def rank_state(self) -> dict[str, Tensor]:
        """What this worker alone holds and a checkpoint must keep."""
        return {}

    def load_rank_state(self, states: Sequence[dict[str, Tensor]]) -> None:
        """Restore from all workers' states, in rank order; there may have been more or fewer."""
