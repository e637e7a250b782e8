"""One loop: it resumes exactly, sums gradients over workers, and follows its schedule."""

from __future__ import annotations

import asyncio
import copy
import itertools
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from distributed import on_two_ranks
from unfused import runtime, training
from unfused.config import (
    AudioConfig,
    DistillConfig,
    EncoderConfig,
    FinetuneConfig,
    PretrainConfig,
    RunOptions,
)
from unfused.models.classifier import ClipClassifier
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.heads import LinearClassifier
from unfused.models.student import StudentHeads
from unfused.optimizers import LARC, build_optimizer, learning_rate_factor
from unfused.stages.distill import DistillLearner
from unfused.stages.finetune import ClassifierLearner
from unfused.stages.pretrain import PretrainLearner
from unfused.store import Folder

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


def _stream() -> training.CachedStream:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((14, 3)).astype("float32"))
    return training.CachedStream({"x": x, "y": x.sum(1)}, 4, seed=5)


def _worker(emitted: list | None = None) -> training.Worker:
    emit = (emitted if emitted is not None else []).append
    return training.Worker(0, 1, torch.device("cpu"), emit)


def _state(learner: Line) -> list[float]:
    return [v for p in learner.state_dict().values() for v in p.flatten().tolist()]


def test_a_resumed_fit_ends_where_an_undisturbed_one_does(tmp_path):
    whole, broken, resumed = Line(), Line(), Line()
    _worker().fit(whole, _stream(), SCHEDULE, node="n")
    checkpoints = Folder.of(tmp_path / "checkpoints")

    def stop(epoch: int) -> dict[str, float]:
        if epoch == 3:
            raise InterruptedError
        return {}

    with pytest.raises(InterruptedError):
        _worker().fit(
            broken, _stream(), SCHEDULE, node="n", checkpoints=checkpoints, after_epoch=stop
        )
    emitted: list = []
    _worker(emitted).fit(resumed, _stream(), SCHEDULE, node="n", checkpoints=checkpoints)
    assert _state(resumed) == _state(whole)
    assert emitted[0].epoch == 3
    assert [event.epoch for event in emitted[1:]] == [4, 5, 6]


class CountedTurns:
    """Turns that nobody waits for."""

    taken, now = 0, 0

    def __enter__(self) -> None:
        self.now += 1
        self.taken += 1

    def __exit__(self, *_: object) -> None:
        self.now -= 1


def test_every_step_is_a_turn_and_a_checkpoint_and_its_metrics_are_none(tmp_path):
    turns, during = CountedTurns(), []

    class Seen(Line):
        needs_initial_pass = True

        def observe(self, batch):
            during.append(turns.now)

        def forward(self, batch):
            during.append(turns.now)
            return super().forward(batch)

    def after_epoch(epoch: int) -> dict[str, float]:
        assert turns.now == 0
        return {}

    worker = replace(_worker(), turns=turns)
    stream, checkpoints = _stream(), Folder.of(tmp_path)
    settings = {"node": "n", "checkpoints": checkpoints, "after_epoch": after_epoch}
    worker.fit(Seen(), stream, SCHEDULE, **settings)
    assert during == [1] * ((1 + SCHEDULE.epochs) * stream.num_steps)
    assert turns.taken == len(during) and turns.now == 0


def test_a_step_that_fails_gives_its_turn_back():
    class Broken(Line):
        def forward(self, batch):
            raise ArithmeticError

    turns = CountedTurns()
    with pytest.raises(ArithmeticError):
        replace(_worker(), turns=turns).fit(Broken(), _stream(), SCHEDULE, node="n")
    assert turns.taken == 1 and turns.now == 0


def test_training_seconds_count_the_epochs_before_an_interruption(tmp_path):
    checkpoints = Folder.of(tmp_path)
    half = SCHEDULE.model_copy(update={"epochs": 3})
    told = _worker().fit(Line(), _stream(), half, node="n", checkpoints=checkpoints)
    state = checkpoints.read_json("latest.json")
    assert told["training_seconds"] == pytest.approx(state["seconds"], abs=1e-3)
    checkpoints.write_json("latest.json", {**state, "seconds": 100.0})
    told = _worker().fit(Line(), _stream(), SCHEDULE, node="n", checkpoints=checkpoints)
    assert 100 < told["training_seconds"] < 110


def test_resuming_a_finished_fit_changes_nothing(tmp_path):
    checkpoints = Folder.of(tmp_path)
    first, again = Line(), Line()
    told = _worker().fit(first, _stream(), SCHEDULE, node="n", checkpoints=checkpoints)
    same = _worker().fit(again, _stream(), SCHEDULE, node="n", checkpoints=checkpoints)
    assert _state(first) == _state(again) and told == same


def test_only_the_newest_checkpoint_is_kept(tmp_path):
    _worker().fit(Line(), _stream(), SCHEDULE, node="n", checkpoints=Folder.of(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-00006", "latest.json"]


def test_training_learns(tmp_path):
    losses: list = []
    _worker(losses).fit(Line(), _stream(), SCHEDULE, node="n")
    assert losses[-1].metrics["loss"] < 0.7 * losses[0].metrics["loss"]


def test_waiting_for_batches_is_told(tmp_path):
    class Late(training.CachedStream):
        def _batches(self, epoch):
            time.sleep(0.05)
            for batch in super()._batches(epoch):
                yield batch
                time.sleep(0.02)

    told: list = []
    stream = Late(_stream().columns, 4, seed=5)
    _worker(told).fit(Line(), stream, SCHEDULE, node="n")
    for epoch in told:
        assert epoch.first_wait_seconds >= 0.05
        assert epoch.wait_seconds >= epoch.first_wait_seconds + 0.02 * (stream.num_steps - 1)


def test_a_loss_that_is_no_number_stops_with_the_remedy():
    schedule = SCHEDULE.model_copy(update={"learning_rate": 1e30, "optimizer": "sgd"})
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        _worker().fit(Line(), _stream(), schedule, node="n")


def _fit_on_rank(rank: int, world: int) -> list[float]:
    """One SGD step on an uneven share of one batch, without dropout."""
    learner = Line().eval()
    learner.train = lambda mode=True: learner  # type: ignore[method-assign]
    whole = _stream().columns
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


def test_the_schedule_warms_up_and_falls_to_nothing():
    rate = [
        learning_rate_factor(s, num_steps=100, warmup_fraction=0.1, schedule="cosine")
        for s in range(100)
    ]
    assert rate[0] == pytest.approx(0.1) and rate[9] == pytest.approx(1.0)
    assert max(rate) == pytest.approx(1.0) and rate[-1] < 0.001
    assert all(a >= b for a, b in itertools.pairwise(rate[10:]))


WINDOWS, ENCODER = 32, EncoderConfig(embedding_dim=64, dropout=0.0)


def _learner(kind: str, encoder: ClipEncoder, samples: torch.Tensor) -> training.Learner:
    if kind == "student":
        heads = [StudentHeads(encoder.encoder, 8, 16)]
        return DistillLearner(encoder, heads, torch.arange(WINDOWS)[None] % 8, DistillConfig())
    if kind == "classifier":
        classifier = ClipClassifier(encoder, LinearClassifier(64, 4), "abcd")
        nn.init.normal_(classifier.head.linear.weight, std=0.1)
        kept = SimpleNamespace(random_windows=lambda indices, *how: samples[indices].numpy())
        return ClassifierLearner(classifier, SimpleNamespace(clips=kept), seed=0)
    return PretrainLearner(encoder, PretrainConfig(objective=kind), range(WINDOWS), WINDOWS)


def _step(kind: str, precision: str, layout: torch.memory_format) -> tuple[float, torch.Tensor]:
    """Loss and gradient of one step on tones, whose clusters and classes are their pitches."""
    torch.manual_seed(0)
    encoder = ClipEncoder(AudioConfig(), ENCODER, mean=-8.0, std=3.0)
    if layout == torch.contiguous_format:
        encoder._image = lambda x: encoder.normalize(x)[:, None].contiguous()
    tones = torch.linspace(0.02, 0.6, WINDOWS)[:, None] * torch.arange(encoder.audio.crop_samples)
    samples = (8000 * tones.sin() + 500 * torch.randn(tones.shape)).to(torch.int16)
    learner = _learner(kind, encoder, samples).to(memory_format=layout)
    clip = torch.arange(WINDOWS)
    with runtime.autocast(torch.device("cpu"), precision):
        loss = learner({"samples": samples, "clip": clip, "label": clip % 4})
    loss.backward()
    gradients = [p.grad.flatten() for p in learner.parameters() if p.grad is not None]
    return float(loss.detach()), torch.cat(gradients).double()


@pytest.mark.parametrize("kind", ["nt_xent", "barlow_twins", "student", "classifier"])
@pytest.mark.parametrize(
    ("precision", "loss_apart", "cosines", "longer"),
    [("float32", 1e-3, (0.998, 1.001), 1e-2), ("bfloat16", 1e-2, (0.97, 0.998), 0.05)],
)
def test_the_fast_step_goes_where_the_plain_one_goes(
    kind, precision, loss_apart, cosines, longer
):
    plain_loss, plain = _step(kind, "float32", torch.contiguous_format)
    fast_loss, fast = _step(kind, precision, torch.channels_last)
    assert fast_loss == pytest.approx(plain_loss, rel=loss_apart)
    assert cosines[0] < torch.cosine_similarity(fast, plain, dim=0) < cosines[1]
    assert fast.norm() == pytest.approx(float(plain.norm()), rel=longer)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("sgd", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.02)),
        ("adam", lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.02)),
        ("adamw", lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.02)),
    ],
)
def test_fast_optimisers_step_as_the_plain_ones(name, plain):
    torch.manual_seed(2)
    start, gradients = torch.randn(7, 5), torch.randn(4, 7, 5)
    results = []
    for build in (plain, lambda p: build_optimizer(name, p, 0.1, 0.02)):
        weight = nn.Parameter(start.clone())
        optimizer = build([weight])
        for gradient in gradients:
            weight.grad = gradient.clone()
            optimizer.step()
        results.append(weight.detach())
    torch.testing.assert_close(results[1], results[0])
    assert not torch.allclose(results[1], start, atol=0.1)


def test_larc_follows_its_formula():
    torch.manual_seed(1)
    weight = nn.Parameter(torch.randn(5, 4))
    start, grad = weight.detach().clone(), torch.randn(5, 4)
    optimizer = LARC([{"params": [weight], "lr": 0.1}], lr=0.1, weight_decay=0.01)
    weight.grad = copy.deepcopy(grad)
    optimizer.step()
    local = 0.001 * start.norm() / (grad.norm() + 0.01 * start.norm())
    expected = start - 0.1 * min(float(local) / 0.1, 1.0) * (grad + 0.01 * start)
    torch.testing.assert_close(weight.detach(), expected)


DONE = [{"loss": 1.0}], ""
FAILED, CANCELLED = ([], "out of memory"), (None, "cancelled")


class Workers:
    """In Ray Train's place: every job is what is to come of it, and "gone" the end of the fit."""

    def __init__(self, desk) -> None:
        self.desk = desk

    def fit(self) -> None:
        for number in itertools.count():
            jobs = self.desk.next.remote(number).result()
            if jobs is None:
                return
            outcome = DONE if jobs == ["gone"] else jobs[0]
            self.desk.finish.remote(number, outcome).result()
            if jobs == ["gone"]:
                return


class Local:
    """An actor in this process, for which `ray.get` is a future's result."""

    def __init__(self, actor) -> None:
        self.actor, self.loop = actor, asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def __getattr__(self, name: str):
        def remote(*arguments):
            answer = getattr(self.actor, name)(*arguments)
            return asyncio.run_coroutine_threadsafe(answer, self.loop)

        return SimpleNamespace(remote=remote)


@pytest.fixture
def session(tmp_path, monkeypatch):
    """`session(gpus=1)`: a session on such hardware, without Ray."""
    import ray

    def remote(actor):
        return SimpleNamespace(options=lambda: SimpleNamespace(remote=lambda: Local(actor())))

    def make(**hardware) -> training.Session:
        laptop = runtime.Hardware(4, 0, bfloat16=False, cuml=False, joined=False)
        cluster = SimpleNamespace(
            hardware=replace(laptop, **hardware), options=RunOptions(), drain=lambda: None
        )
        one = training.Session(cluster, Folder.of(tmp_path / "work"))
        monkeypatch.setattr(one, "_trainer", Workers)
        return one

    monkeypatch.setattr(ray, "get", lambda answer: answer.result())
    monkeypatch.setattr(ray, "remote", remote)
    monkeypatch.setattr(runtime, "beside_driver", dict)
    return make


def _threads(session: training.Session) -> list[threading.Thread]:
    return [session._thread] if session._thread and session._thread.is_alive() else []


@pytest.mark.parametrize(
    ("hardware", "outcome", "error", "stays"),
    [
        ({}, DONE, None, True),
        ({}, CANCELLED, runtime.Cancelled, True),
        ({}, FAILED, training.TrainingFailed, False),
        ({"gpus": 1}, DONE, None, True),
        ({"gpus": 1}, CANCELLED, runtime.Cancelled, True),
        ({"gpus": 1}, FAILED, training.TrainingFailed, False),
        ({"joined": True}, CANCELLED, runtime.Cancelled, True),
    ],
)
def test_workers_stay_for_the_next_stage_and_go_where_a_job_fails(
    session, hardware, outcome, error, stays
):
    one = session(**hardware)
    one.start()
    before = _threads(one)
    if error is None:
        one.run([outcome])
    else:
        with pytest.raises(error, match=outcome[1]):
            one.run([outcome])
    assert [thread.is_alive() for thread in before] == [stays]
    assert one.run([DONE]) == DONE[0]
    assert (_threads(one) == before) == stays
    one.close()


@pytest.mark.parametrize(
    ("hardware", "stays"), [({}, True), ({"gpus": 1}, False), ({"joined": True}, False)]
)
def test_workers_go_where_others_want_what_they_hold(session, hardware, stays):
    one = session(**hardware)
    assert one.run([DONE]) == DONE[0]
    before = _threads(one)
    one.release()
    assert [thread.is_alive() for thread in before] == [stays]
    assert one.run([DONE]) == DONE[0]
    one.close()


def test_workers_that_have_ended_are_started_anew(session):
    one = session()
    one.run(["gone"])
    one._thread.join(5)
    assert one.run([DONE]) == DONE[0]
    one.close()


def test_a_session_tells_whether_its_workers_are_gone(session):
    one = session()
    assert one.close()
    busy = threading.Event()
    one._trainer = lambda desk: SimpleNamespace(fit=busy.wait)
    one.start()
    assert not one.close(seconds=0)
    assert not one.close(seconds=0)
    busy.set()
    assert one.close()


@pytest.mark.parametrize("world", [1, 2])
def test_a_job_that_fails_ends_the_workers_where_others_wait_for_one(world, monkeypatch):
    import ray

    told: list = []
    desk = SimpleNamespace(finish=SimpleNamespace(remote=lambda *outcome: told.append(outcome)))
    monkeypatch.setattr(ray, "get", lambda answer: answer)

    class Broken:
        def run(self, worker):
            raise ValueError("no such thing")

    worker = replace(_worker(), world=world)
    if world == 1:
        found = training._run_batch(worker, [Broken()], desk, 0)
        assert found == ([], "no such thing") and not told
    else:
        with pytest.raises(ValueError):
            training._run_batch(worker, [Broken()], desk, 0)
        assert told == [(0, ([], "no such thing"))]
