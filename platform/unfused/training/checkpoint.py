"""What an interrupted fit resumes from, and where it lies.

The rule of this file: nobody else knows the layout. A checkpoint counts once its `epoch.json` is
there, which is written last and knows the others; one that is not what was written is passed over
for the one before. The last two are kept. On an object store two machines that fit the same have
the same checkpoints: one may lack what the other took away, which costs time alone.

    epoch-00003/epoch.json      what the fit has behind it, how many workers it has, and digests
    epoch-00003/rank-00000.pt   after 3 epochs: model, optimiser, worker 0's own state
    epoch-00003/rank-00001.pt   worker 1's own state
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from unfused.distributed import load_rank_state, rank_state
from unfused.store import Folder, Kept, Work

if TYPE_CHECKING:
    from unfused.training.worker import Worker

RECORD = "epoch.json"
KEPT = 2
START = "epoch-"


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
        place = Work(self._epoch(history.epochs).uri)
        place.write(_file(worker.rank), buffer.getvalue())
        worker.wait()
        if worker.is_first:
            with suppress(FileNotFoundError):
                self._finish(place, worker.world, history)

    def _finish(self, place: Work, world: int, history: History) -> None:
        """Have a checkpoint of all workers count, and take away those that it replaces.

        Raises:
            FileNotFoundError: another machine has taken it away, as it is done.
        """
        names = {_file(rank) for rank in range(world)}
        files = [asdict(one) for one in place.sums() if one.name in names]
        record = {"history": asdict(history), "world": world, "files": files}
        self._epoch(history.epochs).write_json(RECORD, record)
        for epochs in self._there():
            if epochs <= history.epochs - KEPT:
                self._epoch(epochs).delete()

    def restore(
        self,
        learner: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        tell: Callable[[str], None] = lambda text: None,
    ) -> History:
        """Load the newest checkpoint that is whole, if there is one; called on all workers.

        Args:
            learner: gets its state, whatever number of workers left it.
            optimizer: gets its state.
            device: where tensors are loaded.
            tell: takes a sentence about each one that is passed over.

        Returns:
            What the fit has behind it: nothing, where there is no checkpoint.
        """
        for epochs in self._there():
            try:
                history, states = self._read(epochs, device)
            except (OSError, ValueError, KeyError, TypeError) as error:
                reason = str(error).partition("; delete")[0]
                tell(f"The checkpoint after epoch {epochs} is passed over: {reason}.")
                continue
            learner.load_state_dict(states[0]["model"])
            optimizer.load_state_dict(states[0]["optimizer"])
            load_rank_state(learner, [state["rank"] for state in states])
            return history
        return History()

    def newest_model(self, attempts: int = 3) -> dict[str, Tensor] | None:
        """The learner's state in the newest checkpoint, on the CPU, while the fit goes on.

        Args:
            attempts: to find one that the epochs to come do not just replace.

        Returns:
            None where there is none, or where every attempt was in vain.
        """
        for _ in range(attempts):
            for epochs in self._there():
                try:
                    return self._states(epochs, range(1), torch.device("cpu"))[0]["model"]
                except (OSError, ValueError, KeyError, TypeError):
                    continue
        return None

    def _there(self) -> Iterator[int]:
        """The epochs after which something was kept, the last first."""
        names = {name.partition("/")[0] for name in self.folder.names()}
        found = [name.removeprefix(START) for name in names if name.startswith(START)]
        return iter(sorted((int(number) for number in found if number.isdigit()), reverse=True))

    def _read(self, epochs: int, device: torch.device) -> tuple[History, list[dict[str, Any]]]:
        record = self._epoch(epochs).read_json(RECORD)
        history, world = History(**record["history"]), range(record["world"])
        return history, self._states(epochs, world, device)

    def _states(
        self, epochs: int, ranks: range, device: torch.device
    ) -> list[dict[str, Any]]:
        place = self._epoch(epochs)
        known = Kept.of_manifest(place, place.read_json(RECORD))
        read = (io.BytesIO(known.read(_file(rank))) for rank in ranks)
        return [torch.load(data, map_location=device, weights_only=True) for data in read]

    def _epoch(self, epochs: int) -> Folder:
        return self.folder / f"{START}{epochs:05d}"


def _file(rank: int) -> str:
    return f"rank-{rank:05d}.pt"
