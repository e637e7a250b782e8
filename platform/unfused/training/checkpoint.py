"""What an interrupted fit resumes from, and where it lies.

The rule of this file: nobody else knows the layout. A checkpoint counts once `latest.json` names
it; only the newest one is kept.

    latest.json                 what the fit has behind it, and how many workers it has
    epoch-00003/rank-00000.pt   after 3 epochs: model, optimiser, worker 0's own state
    epoch-00003/rank-00001.pt   worker 1's own state
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unfused.distributed import load_rank_state, rank_state
from unfused.store import Folder

if TYPE_CHECKING:
    from unfused.training.worker import Worker

LATEST = "latest.json"
RETRY_SECONDS = 0.2


@dataclass
class History:
    """What a fit has behind it."""

    epochs: int = 0
    """Finished ones."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the last one."""
    seconds: float = 0.0
    """That all of them took."""
    curve: list[dict[str, Any]] = field(default_factory=list)
    """A record for every one: `epoch` (from 1), `metrics`, `clips_per_second`, `wait_seconds`."""

    @classmethod
    def of(cls, latest: Mapping[str, Any]) -> History:
        """What `latest.json` says; an older one keeps no seconds or no curve."""
        seconds, curve = latest.get("seconds", 0.0), latest.get("curve", [])
        return cls(latest["epochs"], latest["metrics"], seconds, curve)


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one fit."""

    folder: Folder

    def save(
        self,
        worker: Worker,
        learner: nn.Module,
        optimizer: torch.optim.Optimizer,
        history: History,
    ) -> None:
        """Keep the state after `history`; called on all workers."""
        mine: dict[str, Any] = {"rank": rank_state(learner)}
        if worker.is_first:
            mine |= {"model": learner.state_dict(), "optimizer": optimizer.state_dict()}
        buffer = io.BytesIO()
        torch.save(mine, buffer)
        self._epoch(history.epochs).write(_file(worker.rank), buffer.getvalue())
        worker.wait()
        if worker.is_first:
            self.folder.write_json(LATEST, {**asdict(history), "world": worker.world})
            self._epoch(history.epochs - 1).delete()

    def restore(
        self,
        learner: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
    ) -> History:
        """Load the newest checkpoint, if there is one; called on all workers.

        Args:
            learner: gets its state, whatever number of workers left it.
            optimizer: gets its state.
            device: where tensors are loaded.

        Returns:
            What the fit has behind it: nothing, where there is no checkpoint.
        """
        if not self.folder.exists(LATEST):
            return History()
        latest = self.folder.read_json(LATEST)
        ranks = range(latest["world"])
        states = [self._load(latest["epochs"], rank, device) for rank in ranks]
        learner.load_state_dict(states[0]["model"])
        optimizer.load_state_dict(states[0]["optimizer"])
        load_rank_state(learner, [state["rank"] for state in states])
        return History.of(latest)

    def newest_model(self, attempts: int = 3) -> dict[str, Tensor] | None:
        """The learner's state in the newest checkpoint, on the CPU, while the fit goes on.

        Args:
            attempts: to find one that the next epoch's does not just replace.

        Returns:
            None where there is none, or where every attempt was in vain.
        """
        for _ in range(attempts):
            try:
                epochs = self.folder.read_json(LATEST)["epochs"]
                return self._load(epochs, 0, torch.device("cpu"))["model"]
            except FileNotFoundError:
                # The next epoch has ended in between and took its place.
                time.sleep(RETRY_SECONDS)
        return None

    def _load(self, epochs: int, rank: int, device: torch.device) -> dict[str, Any]:
        data = io.BytesIO(self._epoch(epochs).read(_file(rank)))
        return torch.load(data, map_location=device, weights_only=True)

    def _epoch(self, epochs: int) -> Folder:
        return self.folder / f"epoch-{epochs:05d}"


def _file(rank: int) -> str:
    return f"rank-{rank:05d}.pt"
