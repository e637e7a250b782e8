"""A fit that takes no time: a regression on a handful of rows."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from unfused import training
from unfused.config import FinetuneConfig

SCHEDULE = FinetuneConfig(
    epochs=6, batch_size=4, learning_rate=0.05, precision="float32", optimizer="adamw"
)


class Line(training.Learner):
    """A regression with dropout, so that a wrong random state shows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.5), nn.Linear(16, 1))

    def forward(self, batch):
        return (self.net(batch["x"])[:, 0] - batch["y"]).square().mean()


def few_rows() -> training.CachedStream:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((14, 3)).astype("float32"))
    return training.CachedStream({"x": x, "y": x.sum(1)}, 4, seed=5)


def lone_worker(emitted: list | None = None) -> training.Worker:
    emit = (emitted if emitted is not None else []).append
    return training.Worker(0, 1, torch.device("cpu"), emit)


def weights_of(learner: Line) -> list[float]:
    return [v for p in learner.state_dict().values() for v in p.flatten().tolist()]
