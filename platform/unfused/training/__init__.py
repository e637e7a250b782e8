"""The Ray Train runs that every stage with a model uses, and their one loop.

The rule of this room: stages that train differ by a model and its batches, never by a copy of the
loop. A stage hands picklable jobs to the `Pool`, the Ray Train runs of a pipeline; each of them, a
`Session`, runs one after the other. A job that learns calls `Worker.fit`, one that embeds or
scores goes through its worker's share of the clips (`Worker.even_windows`).
"""

from __future__ import annotations

from unfused.training.checkpoint import Checkpoints, History
from unfused.training.learner import Batch, Job, Learner
from unfused.training.loop import Fitted
from unfused.training.pool import Pool
from unfused.training.session import Session, TrainingFailed, root_cause
from unfused.training.worker import CachedStream, Stream, Worker

__all__ = [
    "Batch",
    "CachedStream",
    "Checkpoints",
    "Fitted",
    "History",
    "Job",
    "Learner",
    "Pool",
    "Session",
    "Stream",
    "TrainingFailed",
    "Worker",
    "root_cause",
]
