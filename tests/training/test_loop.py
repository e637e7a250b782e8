"""One loop: it resumes exactly, sums gradients over workers, and tells what came of every epoch."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from small_fit import SCHEDULE, Line, few_rows, lone_worker, weights_of

from two_ranks import on_two_ranks
from unfused import runtime, training
from unfused.events import EpochDone
from unfused.store import Folder


def test_a_resumed_fit_ends_where_an_undisturbed_one_does(tmp_path):
    whole, broken, resumed = Line(), Line(), Line()
    lone_worker().fit(whole, few_rows(), SCHEDULE, node="n")
    checkpoints = Folder.of(tmp_path / "checkpoints")

    def stop(epoch: int) -> dict[str, float]:
        if epoch == 3:
            raise InterruptedError
        return {}

    with pytest.raises(InterruptedError):
        lone_worker().fit(
            broken, few_rows(), SCHEDULE, node="n", checkpoints=checkpoints, after_epoch=stop
        )
    emitted: list = []
    lone_worker(emitted).fit(resumed, few_rows(), SCHEDULE, node="n", checkpoints=checkpoints)
    assert weights_of(resumed) == weights_of(whole)
    assert emitted[0].epoch == 3
    assert [event.epoch for event in emitted[1:]] == [4, 5, 6]


def _interrupt(checkpoints: Folder, epochs: int) -> list:
    """A fit that ends after so many epochs: what it has told of them."""

    def stop(epoch: int) -> dict[str, float]:
        if epoch == epochs:
            raise InterruptedError
        return {"validated": float(epoch)}

    told: list = []
    with pytest.raises(InterruptedError):
        lone_worker(told).fit(
            Line(), few_rows(), SCHEDULE, node="n", checkpoints=checkpoints, after_epoch=stop
        )
    return told


def test_the_curve_has_every_epoch_also_those_before_an_interruption(tmp_path):
    checkpoints = Folder.of(tmp_path)
    told = _interrupt(checkpoints, 4)
    fitted = lone_worker(told).fit(Line(), few_rows(), SCHEDULE, node="n", checkpoints=checkpoints)
    ended = [event for event in told if isinstance(event, EpochDone)]
    assert fitted.curve == [
        {
            "epoch": number,
            "metrics": event.metrics,
            "clips_per_second": event.clips_per_second,
            "wait_seconds": event.wait_seconds,
        }
        for number, event in enumerate(ended, start=1)
    ]
    assert [record["metrics"].get("validated") for record in fitted.curve] == [
        0.0, 1.0, 2.0, 3.0, None, None,
    ]
    assert fitted.metrics == fitted.curve[-1]["metrics"]


def test_a_learner_hears_after_every_step_how_far_training_is(tmp_path):
    class Told(Line):
        def __init__(self):
            super().__init__()
            self.heard, self.before = [], weights_of(self)

        def after_step(self, progress):
            assert weights_of(self) != self.before, "the step is taken"
            self.before = weights_of(self)
            self.heard.append(progress)

    learner, checkpoints = Told(), Folder.of(tmp_path)
    lone_worker().fit(learner, few_rows(), SCHEDULE, node="n")
    steps = SCHEDULE.epochs * few_rows().num_steps
    assert learner.heard == [step / steps for step in range(1, steps + 1)]
    _interrupt(checkpoints, 4)
    resumed = Told()
    lone_worker().fit(resumed, few_rows(), SCHEDULE, node="n", checkpoints=checkpoints)
    assert resumed.heard == learner.heard[4 * few_rows().num_steps :]


def test_training_seconds_count_the_epochs_before_an_interruption(tmp_path):
    checkpoints = Folder.of(tmp_path)
    half = SCHEDULE.model_copy(update={"epochs": 3})
    told = lone_worker().fit(Line(), few_rows(), half, node="n", checkpoints=checkpoints)
    place = checkpoints / "epoch-00003"
    state = place.read_json("epoch.json")
    assert told.training_seconds == pytest.approx(state["history"]["seconds"], abs=1e-3)
    place.write_json("epoch.json", {**state, "history": {**state["history"], "seconds": 100.0}})
    told = lone_worker().fit(Line(), few_rows(), SCHEDULE, node="n", checkpoints=checkpoints)
    assert 100 < told.training_seconds < 110


def test_resuming_a_finished_fit_changes_nothing(tmp_path):
    checkpoints = Folder.of(tmp_path)
    first, again = Line(), Line()
    told = lone_worker().fit(first, few_rows(), SCHEDULE, node="n", checkpoints=checkpoints)
    same = lone_worker().fit(again, few_rows(), SCHEDULE, node="n", checkpoints=checkpoints)
    assert weights_of(first) == weights_of(again) and told == same


def test_what_is_cancelled_ends_after_its_epoch_and_goes_on_from_there(tmp_path):
    told: list = []
    worker = replace(lone_worker(told), is_cancelled=lambda: len(told) == 2)
    with pytest.raises(runtime.Cancelled):
        worker.fit(Line(), few_rows(), SCHEDULE, node="n", checkpoints=Folder.of(tmp_path))
    assert [event.epoch for event in told] == [1, 2]
    worker.fit(Line(), few_rows(), SCHEDULE, node="n", checkpoints=Folder.of(tmp_path))
    assert [event.epoch for event in told[2:]] == [2, 3, 4, 5, 6]


def test_training_learns(tmp_path):
    losses: list = []
    lone_worker(losses).fit(Line(), few_rows(), SCHEDULE, node="n")
    assert losses[-1].metrics["loss"] < 0.7 * losses[0].metrics["loss"]


def test_waiting_for_batches_is_told(tmp_path):
    class Late(training.CachedStream):
        def _batches(self, epoch):
            time.sleep(0.05)
            for batch in super()._batches(epoch):
                yield batch
                time.sleep(0.02)

    told: list = []
    stream = Late(few_rows().columns, 4, seed=5)
    lone_worker(told).fit(Line(), stream, SCHEDULE, node="n")
    for epoch in told:
        assert epoch.first_wait_seconds >= 0.05
        assert epoch.wait_seconds >= epoch.first_wait_seconds + 0.02 * (stream.num_steps - 1)


def test_a_loss_that_is_no_number_stops_with_the_remedy():
    schedule = SCHEDULE.model_copy(update={"learning_rate": 1e30, "optimizer": "sgd"})
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        lone_worker().fit(Line(), few_rows(), schedule, node="n")


def _fit_on_rank(rank: int, world: int) -> list[float]:
    """One SGD step on an uneven share of one batch, without dropout."""
    learner = Line().eval()
    learner.train = lambda mode=True: learner  # type: ignore[method-assign]
    whole = few_rows().columns
    rows = slice(0, 5) if rank == 0 else slice(5, 14)
    mine = {k: v[rows] for k, v in whole.items()} if world > 1 else dict(whole)

    class Share(Line):
        def forward(self, batch):
            errors = (learner.net(batch["x"])[:, 0] - batch["y"]).square()
            return errors.sum() / 14

    share = Share()
    share.net = learner.net
    share.train = learner.train  # type: ignore[method-assign]
    worker = training.Worker(rank, world, torch.device("cpu"), lambda event: None)
    once = SCHEDULE.model_copy(
        update={"epochs": 1, "optimizer": "sgd", "warmup_fraction": 0.0, "schedule": "constant"}
    )
    worker.fit(share, training.CachedStream(mine, 14, seed=0), once, node="n")
    return [v for p in learner.net.parameters() for v in p.detach().flatten().tolist()]


def test_two_workers_step_as_one_process_does_on_the_whole_batch(tmp_path):
    ranks = on_two_ranks(_fit_on_rank, tmp_path, 2)
    alone = _fit_on_rank(0, 1)
    assert ranks[0] == pytest.approx(ranks[1], abs=1e-7)
    assert ranks[0] == pytest.approx(alone, abs=1e-6)
