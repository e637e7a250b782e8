"""What the training loop asks of every pre-training objective.

The rule of this room: with several workers an objective's value is that of the whole batch, the
same on all workers, and its gradient flows through this worker's clips alone, so that the sum over
workers of the parameters' gradients is the gradient of the whole batch.

Axes: B clips of this worker (0 or more, not the same on all), F mel bands, T frames, D embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unfused.distributed import PerRank
from unfused.models.clip_encoder import ClipEncoder


@dataclass(frozen=True)
class Setting:
    """What an objective is made for.

    Attributes:
        encoder: that is trained, with its first weights.
        rows: the clips that this worker trains on, of all N.
        num_clips: N.
        seed: of whatever is random in it beside torch's generator.
        features: (N, P) of all clips, for each kind in `teachers.also`; none where the objective's
            settings do not ask for them.
    """

    encoder: ClipEncoder
    rows: range
    num_clips: int
    seed: int
    features: tuple[Tensor, ...] = ()

    @property
    def embedding_dim(self) -> int:
        """D."""
        return self.encoder.encoder.embedding_dim


class Objective(PerRank):
    """A loss over views of the same clips, and whatever it remembers of them.

    What one worker alone holds is its `rank_state` (see `unfused.distributed`); all else is in the
    state dict.

    Attributes:
        needs_initial_pass: `observe` wants every clip once before the first epoch.
        num_views: two augmented ones of every clip, or one, a window as it is.
    """

    needs_initial_pass: bool = False
    num_views: int = 2

    def encode(self, encoder: ClipEncoder, *views: Tensor) -> tuple[Tensor, ...]:
        """What `forward` takes, from all views; by default the clip vectors (B, D) of each.

        Args:
            encoder: that is trained.
            views: (B, F, T) log-mel of each, not normalised.
        """
        return tuple(encoder.encode(view).clip for view in views)

    def forward(self, *rows: Tensor) -> Tensor:
        """The loss of the whole batch, a scalar.

        Args:
            rows: (B, D) embeddings of each view, float32, or what else `encode` gave; and last (B,)
                int64, the index of each clip among all N.
        """
        raise NotImplementedError

    def observe(self, first: Tensor, clip: Tensor) -> None:
        """See embeddings (B, D) of clips (B,) in the pass before the first epoch."""

    def start_epoch(self, epoch: int) -> dict[str, float]:
        """Called on all workers before every epoch; may return metrics, the same on all."""
        return {}

    def after_step(self, encoder: ClipEncoder, progress: float) -> None:
        """Called on all workers after every step of the optimiser.

        Args:
            encoder: that is trained, with its new weights.
            progress: share of all steps that are done, in (0, 1].
        """
