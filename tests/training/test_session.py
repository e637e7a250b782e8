"""Workers stay for the next stage, go where others want what they hold, say what went wrong."""

from __future__ import annotations

import asyncio
import itertools
import pickle
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from small_fit import lone_worker

from unfused import runtime, training
from unfused.config import RunOptions
from unfused.store import Folder
from unfused.training.session import Outcome, run_job, trainer_of

DONE, FAILED = Outcome({"loss": 1.0}), Outcome(reason="out of memory")
CANCELLED = Outcome(reason="cancelled", cancelled=True)


class Workers:
    """In Ray Train's place: every job is what is to come of it, and "gone" the end of the fit."""

    def __init__(self, queue) -> None:
        self.queue = queue

    def fit(self) -> None:
        for number in itertools.count():
            packed = self.queue.next.remote(number).result()
            if packed is None:
                return
            job = pickle.loads(packed)
            outcome = DONE if job == "gone" else job
            self.queue.finish.remote(number, pickle.dumps(outcome)).result()
            if job == "gone":
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
        one.run(outcome)
    else:
        with pytest.raises(error, match=outcome.reason):
            one.run(outcome)
    assert [thread.is_alive() for thread in before] == [stays]
    assert one.run(DONE) == DONE.facts
    assert (_threads(one) == before) == stays
    one.close()


@pytest.mark.parametrize(
    ("hardware", "stays"), [({}, True), ({"gpus": 1}, False), ({"joined": True}, False)]
)
def test_workers_go_where_others_want_what_they_hold(session, hardware, stays):
    one = session(**hardware)
    assert one.run(DONE) == DONE.facts
    before = _threads(one)
    one.release()
    assert [thread.is_alive() for thread in before] == [stays]
    assert one.run(DONE) == DONE.facts
    one.close()


def test_workers_that_have_ended_are_started_anew(session):
    one = session()
    one.run("gone")
    one._thread.join(5)
    assert one.run(DONE) == DONE.facts
    one.close()


def test_a_session_tells_whether_its_workers_are_gone(session):
    one = session()
    assert one.close()
    busy = threading.Event()
    one._trainer = lambda queue: SimpleNamespace(fit=busy.wait)
    one.start()
    assert not one.close(seconds=0)
    assert not one.close(seconds=0)
    busy.set()
    assert one.close()


@pytest.mark.parametrize("world", [1, 2])
def test_a_job_that_fails_ends_the_workers_where_others_wait_for_one(world, monkeypatch):
    import ray

    told: list = []
    queue = SimpleNamespace(finish=SimpleNamespace(remote=lambda *outcome: told.append(outcome)))
    monkeypatch.setattr(ray, "get", lambda answer: answer)

    class Broken:
        def run(self, worker):
            raise ValueError("no such thing")

    worker = replace(lone_worker(), world=world)
    if world == 1:
        found = run_job(worker, Broken(), queue, 0)
        assert found == Outcome(reason="no such thing") and not told
    else:
        with pytest.raises(ValueError):
            run_job(worker, Broken(), queue, 0)
        ((number, packed),) = told
        assert (number, pickle.loads(packed)) == (0, Outcome(reason="no such thing"))


@pytest.mark.parametrize(
    ("num_workers", "on_gpu", "own", "backend"),
    [
        (1, False, True, "BackendConfig"),
        (2, False, True, "BesideConfig"),
        (1, True, True, "BesideConfig"),
        (1, False, False, "TorchConfig"),
    ],
)
def test_workers_meet_by_torch_where_there_are_several_or_it_has_to_choose_a_gpu(
    num_workers, on_gpu, own, backend
):
    trainer, meeting = trainer_of(num_workers, on_gpu=on_gpu, own=own)
    made = trainer(lambda: None, **meeting)
    assert type(made.backend_config).__name__ == backend
