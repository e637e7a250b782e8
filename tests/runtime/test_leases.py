"""No key is built by two at once."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from lock_holder import holder_of
from small_searches import LAPTOP
from unfused import runtime
from unfused.config import RunOptions
from unfused.events import Note, Stream
from unfused.runtime.leases import ABANDONED_SECONDS, LEASE_SECONDS, LeaseTable
from unfused.store import Folder, Store, Work
from unfused.store import store as store_module


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


def on_disk(told: list[Note] | None = None) -> runtime.Cluster:
    """A Ray of a run's own, as far as leases on a disk look at it."""
    stream = Stream([[].append if told is None else told.append])
    return runtime.Cluster(None, None, stream, LAPTOP, RunOptions())  # type: ignore[arg-type]


def test_who_waits_for_another_run_on_a_disk_is_told_and_goes_on_when_that_one_is_killed(tmp_path):
    told, room = [], threading.Event()

    @contextmanager
    def making_room():
        room.set()
        yield

    done = threading.Event()

    def wait() -> None:
        keys = ["cluster/b", "cluster/a"]
        with on_disk(told).lease(keys, "second", making_room, Folder.of(tmp_path)):
            done.set()

    with holder_of(tmp_path / "work" / "cluster-b") as first:
        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        assert room.wait(20) and not done.wait(0.2)
        assert [note.text for note in told] == ["waiting for another run that builds cluster/b"]
        first.kill()
        assert done.wait(20)
    waiting.join(20)
    assert not list((tmp_path / "work").iterdir())


def test_two_that_want_the_same_keys_in_another_order_never_wait_for_each_other(tmp_path):
    store, inside, most = Folder.of(tmp_path), [], []

    def build(keys: list[str]) -> None:
        for _ in range(3):
            with on_disk().lease(keys, "", nullcontext, store):
                inside.append(keys)
                most.append(len(inside))
                inside.remove(keys)

    both = [["fit/a", "fit/b"], ["fit/b", "fit/a"]]
    threads = [threading.Thread(target=build, args=(keys,), daemon=True) for keys in both]
    for one in threads:
        one.start()
    for one in threads:
        one.join(30)
    assert most == [1] * 6


def test_what_a_killed_run_had_begun_goes_and_what_somebody_makes_stays(tmp_path):
    store = Store.at(str(tmp_path))
    left, making = (store.begin("embed", digit * 16) for digit in "ab")
    for work in (left, making):
        work.write("part.bin", b"half of it")
    with holder_of(tmp_path / "work" / f"embed-{'b' * 16}"):
        runtime.sweep(store.root)
        assert not left.exists("part.bin") and making.exists("part.bin")
    runtime.sweep(store.root)
    assert not list((tmp_path / "work").iterdir())


def test_what_is_no_lease_keeps_nothing_that_was_left(tmp_path):
    store = Store.at(str(tmp_path))
    for digit in "abc":
        store.begin("embed", digit * 16).write("part.bin", b"half of it")
    locks = tmp_path / "work" / f".unfused-{os.geteuid()}"
    (locks / f"embed-{'b' * 16}.lock").mkdir(parents=True)
    for name in ("a.lock", "z.lock"):
        (locks / name).symlink_to(tmp_path / "nowhere")
    (locks / "embed-left.lock").touch()
    runtime.sweep(store.root)
    assert {name.split("-")[1][0] for name in (store.root / "work").names()} == {"b"}
    assert not (locks / "embed-left.lock").exists() and (locks / "a.lock").is_symlink()


def with_checkpoints(store: Store) -> None:
    """Of one artifact that is finished, of one that is made, and of one that was interrupted."""
    for key in ("a" * 16, "b" * 16):
        work = store.begin("distill", key)
        work.write("encoder.bin", b"whole")
        store.commit("distill", key, work, {"facts": {}})
    for key in ("a" * 16, "b" * 16, "c" * 16):
        store.checkpoints("distill", key).write("epoch-00001/epoch.json", b"{}")


def those_left(store: Store) -> list[str]:
    return [name.split("/")[1][0] for name in (store.root / "checkpoints").names()]


def test_checkpoints_of_what_is_finished_go_and_others_stay(tmp_path):
    store = Store.at(str(tmp_path))
    with_checkpoints(store)
    with holder_of(tmp_path / "work" / f"distill-{'b' * 16}"):
        runtime.sweep(store.root)
        assert those_left(store) == ["b", "c"]
    runtime.sweep(store.root)
    assert those_left(store) == ["c"]


def test_checkpoints_of_what_another_has_finished_go_from_an_object_store(bucket, credentials):
    store = Store.at(f"s3://clips/late{bucket[1]}")
    with_checkpoints(store)
    runtime.sweep(store.root)
    assert those_left(store) == ["c"] and store.check("distill", "a" * 16) == []


def test_what_nobody_adds_to_for_a_day_goes_from_an_object_store(bucket, credentials, monkeypatch):
    put, query = bucket
    store = Store.at(f"s3://clips/store{query}")
    store.begin("embed", "0123456789abcdef").write("rows.bin", b"1")
    put("store/work/1.probe", b"1")
    put("store/embed/k1/manifest.json", b"{}")
    runtime.sweep(store.root)
    assert len(store.root.names()) == 4
    later = time.time() + ABANDONED_SECONDS
    monkeypatch.setattr(time, "time", lambda: later + 60)
    runtime.sweep(store.root)
    assert store.root.names() == ["embed/k1/manifest.json"]


def test_half_a_copy_of_a_dead_builder_goes_from_an_object_store_and_an_artifact_stays(
    bucket, credentials, monkeypatch
):
    store = Store.at(f"s3://clips/dead{bucket[1]}")
    copy = store_module._copy

    def half(source, target, names):
        copy(source, target, names[:1])
        raise KeyboardInterrupt

    def die(work):
        raise KeyboardInterrupt

    for key, owner, name, end in (("a", store_module, "_copy", half), ("b", Work, "delete", die)):
        work = store.begin("embed", key * 16)
        for file in ("one.bin", "two.bin"):
            work.write(file, b"1")
        with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
            killed.setattr(owner, name, end)
            store.commit("embed", key * 16, work, {"facts": {}})
    assert len(store.folder("embed", "a" * 16).names()) == 1
    later = time.time() + ABANDONED_SECONDS
    monkeypatch.setattr(time, "time", lambda: later + 60)
    runtime.sweep(store.root)
    assert not (store.root / "work").names() and not store.folder("embed", "a" * 16).names()
    assert store.check("embed", "b" * 16) == []
    assert store.kept("embed", "b" * 16).names() == ["one.bin", "two.bin"]


def test_who_is_wanted_no_longer_does_not_wait_on(tmp_path):
    def check() -> None:
        raise runtime.Cancelled("cancelled")

    with on_disk().lease(["fit/b"], "first", nullcontext, Folder.of(tmp_path)):
        second = on_disk().lease(["fit/a", "fit/b"], "", nullcontext, Folder.of(tmp_path), check)
        with pytest.raises(runtime.Cancelled), second:
            pass
        with on_disk().lease(["fit/a"], "third", nullcontext, Folder.of(tmp_path), check):
            pass


def test_a_store_without_locks_is_used_all_the_same_and_that_is_told_once(tmp_path, monkeypatch):
    def unsupported(file: int, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    told: list[Note] = []
    one = on_disk(told)
    for key in ("fit/a", "fit/b"):
        with one.lease([key], "run", nullcontext, Folder.of(tmp_path)):
            pass
    assert [note.level for note in told] == ["warning"] and "has no locks" in told[0].text


def test_a_store_that_is_not_on_a_disk_has_no_leases(tmp_path, monkeypatch):
    monkeypatch.setattr(Folder, "local", None)
    with on_disk().lease(["fit/a"], "run", nullcontext, Folder.of(tmp_path)):
        pass
    assert not list(Path(tmp_path).iterdir())
