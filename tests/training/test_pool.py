"""Jobs run side by side, on workers that are there already, and free workers make room."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext

import pytest

from fake_sessions import fake_pool
from unfused.stages import Workers
from unfused.training.session import TrainingFailed

PATIENCE = 20.0


@pytest.fixture
def pool(tmp_path, monkeypatch):
    return fake_pool(tmp_path, monkeypatch, 2)


def test_two_jobs_run_at_the_same_time_and_a_third_waits_for_a_worker(pool):
    both = threading.Barrier(2, timeout=PATIENCE)
    place: list[str] = []

    def job(session):
        both.wait()
        place.append(session.storage.path)
        return len(place)

    assert sorted(pool.run([job, job, job, job])) == [1, 2, 3, 4]
    assert len(set(place)) == 2


def test_what_waits_for_a_worker_begins_when_it_has_one(pool):
    held, over = threading.Barrier(3, timeout=PATIENCE), threading.Event()

    def job(session):
        held.wait()
        assert over.wait(PATIENCE)

    def quick(session):
        return time.time()

    first, second = Workers(pool), Workers(pool)
    before = threading.Thread(target=first.run, args=([job, job],))
    before.start()
    held.wait()
    waits = threading.Thread(target=second.run, args=([quick, quick],))
    waits.start()
    waits.join(0.1)
    assert first.began and second.began is None
    freed = time.time()
    over.set()
    for thread in (before, waits):
        thread.join(PATIENCE)
    assert first.began < freed <= second.began


def test_what_others_take_between_two_jobs_is_no_time_of_either(tmp_path, monkeypatch):
    pool = fake_pool(tmp_path, monkeypatch, 1)
    workers, urgent = Workers(pool, (2.0,)), Workers(pool, (1.0,))
    begun = threading.Event()

    def first(session):
        begun.set()
        while not pool._queue[1:]:
            time.sleep(0.001)

    some = threading.Thread(target=workers.run, args=([first, lambda session: None],))
    some.start()
    assert begun.wait(PATIENCE)
    urgent.run([lambda session: time.sleep(0.3)])
    some.join(PATIENCE)
    assert 0.3 <= workers.waited < 3.0 and urgent.waited == 0


def test_of_what_waits_the_lowest_turn_is_next_and_of_one_turn_what_came_first(
    tmp_path, monkeypatch
):
    pool = fake_pool(tmp_path, monkeypatch, 1)
    held, over = threading.Event(), threading.Event()
    taken: list[str] = []

    def job(session):
        held.set()
        assert over.wait(PATIENCE)

    def note(name: str):
        return lambda session: taken.append(name)

    busy = threading.Thread(target=pool.run, args=([job],))
    busy.start()
    assert held.wait(PATIENCE)
    waiting = {"last": (2.0, -5.0), "second": (1.0, -2.0), "third": (1.0, -2.0)}
    waiting["first"] = (1.0, -3.0)
    threads = [busy]
    for name, turn in waiting.items():
        threads.append(threading.Thread(target=pool.run, args=([note(name)], nullcontext, turn)))
        threads[-1].start()
        while len(pool._queue) < len(threads) - 1:
            time.sleep(0.001)
    over.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert taken == ["first", "second", "third", "last"]


def test_facts_come_in_the_order_of_their_jobs(pool):
    first = threading.Event()

    def slow(session):
        assert first.wait(PATIENCE)
        return "slow"

    def quick(session):
        first.set()
        return "quick"

    assert pool.run([slow, quick]) == ["slow", "quick"]


def test_jobs_that_come_one_after_the_other_need_one_worker(pool):
    for _ in range(3):
        assert pool.run([lambda session: "done"]) == ["done"]
    assert [session.told for session in pool._sessions] == [["run"] * 3, []]


def test_a_job_that_fails_says_so_and_its_worker_takes_the_next(pool):
    def broken(session):
        raise TrainingFailed("out of memory")

    with pytest.raises(TrainingFailed, match="out of memory"):
        pool.run([broken, lambda session: 1])
    assert pool.run([lambda session: 2, lambda session: 3]) == [2, 3]


def test_free_workers_make_room_at_once_and_busy_ones_when_they_are_done(pool):
    begun, go_on = threading.Event(), threading.Event()

    def job(session):
        begun.set()
        assert go_on.wait(PATIENCE)

    other = threading.Thread(target=pool.run, args=([job],))
    other.start()
    assert begun.wait(PATIENCE)
    busy, free = pool._sessions
    with pool.making_room():
        assert "release" in free.told and "release" not in busy.told
        go_on.set()
        other.join(PATIENCE)
        assert busy.told[-1] == "release"
    pool.run([lambda session: None])
    assert busy.told[-1] == "run"


def test_all_workers_give_up_and_go(pool):
    pool.cancel()
    assert pool.close()
    assert all({"cancel", "close"} <= {*session.told} for session in pool._sessions)
