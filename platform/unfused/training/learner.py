"""What a stage brings to training: jobs for the workers, and a learner for the loop.

The rule of this file: a learner says what the loss of a batch is and what happens around the steps
and epochs, and nothing of workers, optimisers or checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

if TYPE_CHECKING:
    from unfused.training.worker import Worker

Batch = Mapping[str, Tensor]
"""Columns by name, each with the clips of a batch along its first axis."""


class Job(Protocol):
    """One piece of work on a model: plain data that travels to the workers."""

    def run(self, worker: Worker) -> Any:
        """Train or compute, write the result and return its facts; called on every worker."""


def nodes_of(job: Job) -> tuple[str, ...]:
    """The nodes that a job works for: its `nodes`, or its `node`, or nobody's."""
    node = getattr(job, "node", "")
    return tuple(getattr(job, "nodes", (node,) if node else ()))


class Learner(nn.Module):
    """What `Worker.fit` trains: `forward(batch)` is this worker's loss.

    The value is the loss of the global batch; the gradient flows through this worker's clips alone,
    so that the sum over workers is the gradient of the global batch.

    What a checkpoint keeps of it is its state dict, and the own state of every worker in those of
    its modules that are `distributed.PerRank`.

    Attributes:
        needs_initial_pass: `observe` wants every clip once before the first epoch.
    """

    needs_initial_pass: bool = False

    def observe(self, batch: Batch) -> None:
        """See a batch of the pass before the first epoch."""

    def start_epoch(self, epoch: int) -> dict[str, float]:
        """Called on all workers before an epoch (from 0); may return metrics."""
        return {}

    def after_step(self, progress: float) -> None:
        """Called on all workers after every step of the optimiser, with the new weights.

        Args:
            progress: how far training is, in (0, 1]: steps done, by those of all epochs.
        """
