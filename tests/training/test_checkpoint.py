"""A checkpoint keeps all that a fit resumes from, and one file knows where it lies."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from small_fit import SCHEDULE, Line, few_rows, lone_worker, weights_of

from two_ranks import on_two_ranks
from unfused import training
from unfused.distributed import PerRank
from unfused.events import Note, Resumed
from unfused.store import Folder, Work


def test_the_last_two_checkpoints_are_kept(tmp_path):
    lone_worker().fit(Line(), few_rows(), SCHEDULE, node="n", checkpoints=Folder.of(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-00005", "epoch-00006"]


def _cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def _garble(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def _empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("name", ["rank-00000.pt", "epoch.json"])
@pytest.mark.parametrize("damage", [_cut, _garble, _empty, Path.unlink])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, name, damage):
    folder, undisturbed = Folder.of(tmp_path), Line()
    lone_worker().fit(undisturbed, few_rows(), SCHEDULE, node="n", checkpoints=folder)
    damage(tmp_path / "epoch-00006" / name)
    told: list = []
    again = Line()
    lone_worker(told).fit(again, few_rows(), SCHEDULE, node="n", checkpoints=folder)
    assert weights_of(again) == weights_of(undisturbed)
    assert [event.epoch for event in told if isinstance(event, Resumed)] == [5]
    (note,) = [event.text for event in told if isinstance(event, Note)]
    assert note.startswith("The checkpoint after epoch 6 is passed over")


def test_without_a_sound_checkpoint_a_fit_begins_anew(tmp_path):
    folder, undisturbed = Folder.of(tmp_path), Line()
    lone_worker().fit(undisturbed, few_rows(), SCHEDULE, node="n", checkpoints=folder)
    for epoch in (5, 6):
        _garble(tmp_path / f"epoch-0000{epoch}" / "rank-00000.pt")
    again = Line()
    lone_worker().fit(again, few_rows(), SCHEDULE, node="n", checkpoints=folder)
    assert weights_of(again) == weights_of(undisturbed)


def test_a_fit_goes_on_while_another_machine_takes_its_checkpoints_away(tmp_path, monkeypatch):
    folder, undisturbed = Folder.of(tmp_path / "one"), Line()
    lone_worker().fit(undisturbed, few_rows(), SCHEDULE, node="n", checkpoints=folder)
    shared, listed, taken = Folder.of(tmp_path / "shared"), Work.sizes, []

    def raced(work):
        found = listed(work)
        if len(taken) < 3:
            taken.append(found)
            shared.delete()
        return found

    monkeypatch.setattr(Work, "sizes", raced)
    again = Line()
    lone_worker().fit(again, few_rows(), SCHEDULE, node="n", checkpoints=shared)
    assert weights_of(again) == weights_of(undisturbed) and all(taken) and len(taken) == 3
    kept = sorted(path.name for path in (tmp_path / "shared").iterdir())
    assert kept == ["epoch-00005", "epoch-00006"]


def test_the_newest_model_is_read_from_a_fit_that_goes_on(tmp_path):
    learner, kept = Line(), training.Checkpoints(Folder.of(tmp_path))
    seen: list = []

    def look(epoch: int) -> dict[str, float]:
        seen.append((kept.newest_model(attempts=1), weights_of(learner)))
        return {}

    lone_worker().fit(
        learner, few_rows(), SCHEDULE, node="n", checkpoints=kept.folder, after_epoch=look
    )
    assert seen[0][0] is None
    for (_, before), (model, _) in itertools.pairwise(seen):
        assert [v for tensor in model.values() for v in tensor.flatten().tolist()] == before


def test_a_model_that_is_half_written_gives_way_to_the_one_before(tmp_path):
    folder = Folder.of(tmp_path)
    lone_worker().fit(Line(), few_rows(), SCHEDULE, node="n", checkpoints=folder)
    (tmp_path / "epoch-00006" / "epoch.json").unlink()
    before = training.Checkpoints(folder).newest_model()
    (tmp_path / "epoch-00005" / "epoch.json").unlink()
    assert before is not None
    assert training.Checkpoints(folder).newest_model() is None


TWO_EPOCHS = SCHEDULE.model_copy(update={"epochs": 2})


class Own(PerRank):
    """Remembers how many rows this worker has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.loaded = 0, []

    def rank_state(self):
        return {"seen": torch.tensor(self.seen)}

    def load_rank_state(self, states):
        self.loaded = [int(state["seen"]) for state in states]


class Counting(Line):
    def __init__(self) -> None:
        super().__init__()
        self.own = Own()

    def forward(self, batch):
        self.own.seen += len(batch["y"])
        return super().forward(batch)


def _count(rank: int, folder: Folder) -> list[int]:
    rows = slice(0, 5) if rank == 0 else slice(5, 14)
    mine = {name: column[rows] for name, column in few_rows().columns.items()}
    stream = training.CachedStream(mine, 14, seed=0)
    worker = training.Worker(rank, 2, torch.device("cpu"), lambda event: None)
    for _ in range(2):
        learner = Counting()
        worker.fit(learner, stream, TWO_EPOCHS, node="n", checkpoints=folder)
    return learner.own.loaded


def test_every_worker_gets_the_own_states_of_all_also_where_there_are_fewer_now(tmp_path):
    folder = Folder.of(tmp_path / "checkpoints")
    (tmp_path / "ranks").mkdir()
    assert on_two_ranks(_count, tmp_path / "ranks", folder) == [[10, 18], [10, 18]]
    alone = Counting()
    lone_worker().fit(alone, few_rows(), TWO_EPOCHS, node="n", checkpoints=folder)
    assert alone.own.loaded == [10, 18]
