"""No key is built by two at once."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import replace

from unfused.runtime.leases import LEASE_SECONDS, LeaseTable


def test_a_key_has_one_builder_and_a_released_lease_passes_on():
    leases = LeaseTable()
    assert leases.acquire("k", "a") and leases.acquire("k", "a")
    assert not leases.acquire("k", "b")
    leases.release("k", "b")
    assert not leases.acquire("k", "b")
    leases.release("k", "a")
    assert leases.acquire("k", "b")


def test_a_dead_builders_lease_runs_out(monkeypatch):
    leases = LeaseTable()
    assert leases.acquire("k", "dead")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + LEASE_SECONDS + 1)
    assert leases.acquire("k", "alive")
    assert not leases.acquire("k", "dead")


def test_who_waits_for_another_builder_lets_its_workers_go_and_goes_on_after_it(ray_cluster):
    import ray

    leases = ray.remote(LeaseTable).options(num_cpus=0).remote()
    released, entered = threading.Event(), threading.Event()
    one = replace(ray_cluster, leases=leases)

    @contextmanager
    def making_room():
        released.set()
        yield

    def second() -> None:
        with one.lease(["cluster/k"], "second", making_room):
            entered.set()

    with one.lease(["cluster/k"], "first", making_room):
        assert not released.is_set()
        waiting = threading.Thread(target=second)
        waiting.start()
        assert released.wait(20)
        assert not entered.is_set()
    assert entered.wait(20)
    waiting.join()


def test_nobody_is_waited_for_where_nobody_else_builds(ray_cluster):
    assert ray_cluster.leases is None
    waited: list[bool] = []
    for holder in ("one", "two"):
        with ray_cluster.lease(["k"], holder, lambda: waited.append(True)):
            pass
    assert not waited
