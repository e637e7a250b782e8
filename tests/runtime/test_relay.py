"""Events reach a listener in the order in which each sender sent them, and none gets lost."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from unfused.actors import Mailbox
from unfused.events import Event, Note, Stream
from unfused.runtime.relay import Pump

LARGE = 300_000
"""Characters of a text that Ray does not send along with the call."""


@pytest.fixture
def seen(ray_cluster) -> Iterator[list[Event]]:
    """What a listener has been handed, in its order."""
    events: list[Event] = []
    ray_cluster.stream.subscribe(events.append)
    yield events
    ray_cluster.stream.subscribers.remove(events.append)


@pytest.fixture
def send(ray_cluster):
    """A task of Ray: events on two threads, waiting for an answer only now and then, and at last.

    Args: the sender's name and how many events a thread sends.
    """
    import ray

    def send_on_thread(relay, name: str, count: int) -> None:
        for i in range(count):
            padding = "x" * (LARGE if i % 40 == 7 else 1)
            sent = relay.put.remote(Note(str(i), node=name, level=padding))
            if i % 50 == 0 or i == count - 1:
                ray.get(sent)

    @ray.remote(num_cpus=0.1)
    def task(relay, sender: str, count: int) -> None:
        with ThreadPoolExecutor(2) as pool:
            names = [f"{sender}{n}" for n in range(2)]
            list(pool.map(lambda name: send_on_thread(relay, name, count), names))

    return lambda sender, count: task.remote(ray_cluster.relay, sender, count)


def _by_sender(events: list[Event]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for event in events:
        found[event.node].append(int(event.text))
    return found


def test_events_of_many_senders_keep_their_order_while_others_drain(ray_cluster, seen, send):
    import ray

    finished = threading.Event()

    def drain() -> None:
        while not finished.wait(0.01):
            ray_cluster.drain()

    with ThreadPoolExecutor(3) as pool:
        draining = [pool.submit(drain) for _ in range(3)]
        try:
            ray.get([send(sender, 200) for sender in "abc"])
            ray_cluster.drain()
            found = _by_sender(list(seen))
        finally:
            finished.set()
    assert not any(one.exception() for one in draining)
    senders = [f"{sender}{n}" for sender in "abc" for n in range(2)]
    assert found == {sender: list(range(200)) for sender in senders}


def test_after_a_drain_all_that_was_sent_before_has_arrived(ray_cluster, seen, send):
    import ray

    ray_cluster.stream.subscribe(slow := lambda event: time.sleep(0.002))
    others = send("other", 100)
    for i in range(30):
        ray_cluster.relay.put.remote(Note(str(i), node="mine"))
        ray_cluster.drain()
        assert _by_sender(list(seen))["mine"] == list(range(i + 1))
    ray.get(others)
    ray_cluster.drain()
    ray_cluster.stream.subscribers.remove(slow)


def test_a_listener_that_drains_does_not_wait_for_itself(ray_cluster, seen):
    import ray

    ray_cluster.stream.subscribe(drains := lambda event: ray_cluster.drain())
    ray.get(ray_cluster.relay.put.remote(Note("0")))
    began = time.monotonic()
    ray_cluster.drain()
    ray_cluster.stream.subscribers.remove(drains)
    assert len(seen) == 1 and time.monotonic() - began < 20


def test_a_stream_that_changes_gets_the_events_that_come_then(ray_cluster, seen):
    first, events = ray_cluster.stream, []
    try:
        ray_cluster.stream = Stream([events.append])
        ray_cluster.relay.put.remote(Note("0"))
        ray_cluster.drain()
    finally:
        ray_cluster.stream = first
    assert len(events) == 1 and not seen


def test_nobody_waits_for_events_that_can_no_longer_come():
    ended = threading.Event()

    def gone(*_: object, **__: object) -> None:
        ended.set()
        raise RuntimeError("the actor is gone")

    method = SimpleNamespace(remote=gone, options=lambda **_: SimpleNamespace(remote=gone))
    lost = SimpleNamespace(take=method, put=SimpleNamespace(remote=lambda mark: None))
    pump = Pump(lost)
    pump.drain()
    pump.start(lambda event: None)
    assert ended.wait(20)
    began = time.monotonic()
    pump.drain()
    assert time.monotonic() - began < 5


def test_a_mailbox_gives_what_it_has_in_order_and_else_waits_no_longer_than_asked():
    mailbox = Mailbox()
    events = [Note(str(i)) for i in range(5)]
    for event in events:
        mailbox.put(event)
    assert mailbox.take(10.0) == events
    began = time.monotonic()
    assert mailbox.take(0.05) == []
    assert time.monotonic() - began < 5
