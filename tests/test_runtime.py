"""Nothing waits for what can never come, and no key is built by two at once."""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from unfused import runtime, training
from unfused.config import Config, ConfigError, RunOptions, flatten, override
from unfused.events import Event, Note, Stream
from unfused.pipeline import open_cluster
from unfused.runtime import DoesNotFit, Hardware
from unfused.stages import cluster, training_needs
from unfused.store import Folder

LAPTOP = Hardware(cpus=4, gpus=0, bfloat16=False, cuml=False, joined=False)
CLUSTER = Hardware(cpus=64, gpus=8, bfloat16=True, cuml=True, joined=True)


def test_a_request_for_more_gpus_than_there_are_is_refused_in_one_sentence():
    options = RunOptions(num_workers=8, gpus_per_worker=1)
    needs = training_needs(options, LAPTOP)
    with pytest.raises(DoesNotFit, match=r"pretrain needs 8 GPUs and this machine has .* 0; lower"):
        runtime.check_fit("pretrain", {"GPU": needs["GPU"]}, LAPTOP)


def test_ray_data_always_has_cpus_beside_the_workers():
    for workers in (1, 2, 5):
        options = RunOptions(num_workers=workers)
        assert training_needs(options, LAPTOP)["CPU"] >= 2 * workers
        own = runtime.logical_cpus(options)
        assert own >= training_needs(options, LAPTOP)["CPU"]
        # The workers stay while embeddings are clustered.
        assert own >= workers + cluster.needs(options, LAPTOP)["CPU"]


def test_workers_take_gpus_where_there_are_any():
    assert runtime.gpus_per_worker(RunOptions(), CLUSTER) == 1
    assert runtime.gpus_per_worker(RunOptions(), LAPTOP) == 0
    assert runtime.gpus_per_worker(RunOptions(gpus_per_worker=0), CLUSTER) == 0


@pytest.mark.parametrize(
    ("hardware", "precision", "backend"),
    [(LAPTOP, "float32", "torch"), (CLUSTER, "bfloat16", "cuml")],
)
def test_what_auto_means_is_settled_before_anything_is_keyed(hardware, precision, backend):
    config = runtime.resolve(Config(), hardware)
    settings = flatten(config)
    assert {settings[name] for name in settings if name.endswith(".precision")} == {precision}
    assert "auto" not in settings.values()
    assert config.cluster.backend == backend


def node(host: str, **resources: float) -> dict:
    return {"Alive": True, "NodeManagerAddress": host, "Resources": resources}


def test_gpus_that_an_autoscaler_may_start_count_before_they_are_there():
    head = node("a", CPU=8, **{runtime.HEAD: 1})
    alone = runtime.of_cluster([head], "", cuml=False)
    assert (alone.cpus, alone.gpus, alone.machines) == (8, 0, 1)
    grows = runtime.of_cluster([head], "8*CPU=8,GPU=1; 2*CPU=16", cuml=True)
    assert (grows.cpus, grows.gpus, grows.node_gpus, grows.machines) == (104, 8, 1, 11)
    grown = [head, *(node(f"g{i}", CPU=8, GPU=1) for i in range(8)), {"Alive": False}]
    assert runtime.of_cluster(grown, "8*CPU=8,GPU=1; 2*CPU=16", cuml=True) == grows


def test_growth_that_cannot_be_read_is_one_sentence():
    with pytest.raises(ConfigError, match="'8 x GPU' does not read like 8\\*CPU=8,GPU=1; correct"):
        runtime.of_cluster([], "8 x GPU", cuml=False)


def test_a_worker_that_no_node_can_hold_is_refused():
    grows = runtime.of_cluster([], "8*CPU=8,GPU=1", cuml=False)
    options = RunOptions(gpus_per_worker=2, store="s3://bucket/store")
    with pytest.raises(DoesNotFit, match=r"needs 2 GPUs and no machine .* more than 1; lower"):
        runtime.check_cluster(options, grows)
    runtime.check_cluster(RunOptions(store="s3://bucket/store"), grows)


def test_a_store_that_other_machines_cannot_see_is_refused():
    nodes = [node("a", CPU=8), node("b", CPU=8)]
    two = runtime.of_cluster(nodes, "", cuml=False)
    with pytest.raises(ConfigError, match=r"folder of one machine .* to 2; give s3://"):
        runtime.check_cluster(RunOptions(), two)
    runtime.check_cluster(RunOptions(store="file:///mnt/store"), two)
    runtime.check_cluster(RunOptions(), runtime.of_cluster(nodes[:1] * 4, "", cuml=False))


def test_native_bfloat16_is_what_torch_finds():
    import torch

    found = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert runtime.native_bfloat16(gpu=False) == found


@pytest.mark.parametrize(
    ("flags", "native"),
    [("sse2 avx512_bf16 sha", True), ("fma amx_bf16", True), ("avx512f bf16", False)],
)
def test_a_processor_without_the_instructions_computes_in_float32(
    monkeypatch, tmp_path, flags, native
):
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    monkeypatch.setattr(runtime, "CPU_FLAGS", tmp_path / "cpuinfo")
    assert runtime.native_bfloat16(gpu=False) == native


def test_a_precision_that_was_asked_for_is_kept():
    asked = override(Config(), {"distill.precision": "float32"})
    assert runtime.resolve(asked, CLUSTER).distill.precision == "float32"


def test_a_key_has_one_builder_and_a_released_lease_passes_on():
    leases = runtime._Leases()
    assert leases.acquire("k", "a") and leases.acquire("k", "a")
    assert not leases.acquire("k", "b")
    leases.release("k", "b")
    assert not leases.acquire("k", "b")
    leases.release("k", "a")
    assert leases.acquire("k", "b")


def test_a_dead_builders_lease_runs_out(monkeypatch):
    leases = runtime._Leases()
    assert leases.acquire("k", "dead")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + runtime.LEASE_SECONDS + 1)
    assert leases.acquire("k", "alive")
    assert not leases.acquire("k", "dead")


def test_who_waits_for_another_builder_lets_its_workers_go_and_goes_on_after_it(ray_cluster):
    import ray

    leases = ray.remote(runtime._Leases).options(num_cpus=0).remote()
    released, entered = threading.Event(), threading.Event()
    session = SimpleNamespace(release=released.set)
    one = replace(ray_cluster, leases=leases, session=session)

    def second() -> None:
        with one.lease(["cluster/k"], "second"):
            entered.set()

    with one.lease(["cluster/k"], "first"):
        waiting = threading.Thread(target=second)
        waiting.start()
        assert released.wait(20)
        assert not entered.is_set()
    assert entered.wait(20)
    waiting.join()


def test_workers_of_a_ray_of_ones_own_have_their_drivers_niceness(ray_cluster):
    import ray

    @ray.remote(num_cpus=0.1)
    def niceness():
        return os.getpriority(os.PRIO_PROCESS, 0)

    assert ray.get(niceness.remote()) == niceness._function()


def test_events_of_workers_reach_the_driver_in_order(ray_cluster):
    import ray

    seen: list[Event] = []
    ray_cluster.stream.subscribe(seen.append)

    @ray.remote(num_cpus=0.1)
    def work(relay):
        for i in range(20):
            ray.get(relay.put.remote(Note(str(i))))

    ray.get(work.remote(ray_cluster.relay))
    ray_cluster.drain()
    deadline = time.monotonic() + 10
    while len(seen) < 20 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [event.text for event in seen] == [str(i) for i in range(20)]


def test_a_subscriber_that_fails_never_stops_the_run(caplog):
    stream, seen = Stream(), []

    def broken(event: Event) -> None:
        raise RuntimeError("display is gone")

    stream.subscribe(broken)
    stream.subscribe(seen.append)
    stream.emit(Note("one"))
    stream.emit(Note("two"))
    assert [event.text for event in seen] == ["one", "two"]
    assert caplog.text.count("display is gone") == 1


@pytest.mark.parametrize(("hardware", "freed"), [(LAPTOP, True), (CLUSTER, False)])
def test_places_that_a_killed_process_held_are_free_again_on_a_ray_of_ones_own(
    ray_cluster, hardware, freed
):
    import ray
    from ray.util.placement_group import (
        placement_group,
        placement_group_table,
        remove_placement_group,
    )

    place = placement_group([{"CPU": 1}])
    ray.get(place.ready())
    runtime.free_places(hardware)
    try:
        assert (placement_group_table(place)["state"] == "REMOVED") == freed
    finally:
        remove_placement_group(place)


@pytest.mark.parametrize("gone", [True, False])
def test_a_run_whose_workers_are_still_ending_leaves_ray_to_them(gone, tmp_path, monkeypatch):
    session = SimpleNamespace(close=lambda: gone)
    cluster = SimpleNamespace(session=None)
    abandoned: list[bool] = []
    monkeypatch.setattr(runtime, "connect", lambda *_, **__: nullcontext(cluster))
    monkeypatch.setattr(runtime, "abandon", lambda: abandoned.append(True))
    monkeypatch.setattr(training, "Session", lambda *_: session)
    with open_cluster(RunOptions(), LAPTOP, Stream(), Folder.of(tmp_path)) as opened:
        assert opened.session is session
    assert bool(abandoned) != gone


needs_linux = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux' scheduling")


def in_thread(run):
    """What `run` returns on a thread of its own, whose scheduling ends with it."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


@needs_linux
def test_what_starts_in_the_background_stays_there_and_its_starter_does_not():
    def run() -> tuple[int, str, int]:
        with runtime.in_background():
            inside = os.sched_getscheduler(0)
            child = "import os; print(os.sched_getscheduler(0))"
            printed = subprocess.check_output([sys.executable, "-c", child], text=True)
        return inside, printed.strip(), os.sched_getscheduler(0)

    assert in_thread(run) == (os.SCHED_BATCH, str(os.SCHED_BATCH), os.SCHED_OTHER)


@needs_linux
def test_a_thread_that_computes_leaves_the_background_and_keeps_its_turn_and_its_niceness():
    def run() -> list[tuple[int, int, int]]:
        found = []

        def look() -> None:
            now = runtime._scheduling()
            found.append((now.policy, now.turn, now.niceness))

        os.setpriority(os.PRIO_PROCESS, 0, 5)
        with runtime.in_background():
            look()
            runtime.hold_cores()
            look()
        runtime.hold_cores()
        look()
        with runtime.in_background():
            look()
        look()
        return found

    background, held, again, inside, after = in_thread(run)
    assert background[0] == inside[0] == os.SCHED_BATCH
    assert held == again == after and held[0] == os.SCHED_OTHER
    assert {niceness for *_, niceness in (background, held, again, inside, after)} == {5}
    kernel = tuple(int(part) for part in platform.release().split(".")[:2])
    if kernel >= (6, 12):
        assert held[1] == round(runtime.TURN_SECONDS * 1e9)


def test_a_processor_whose_system_calls_are_not_known_changes_nothing(monkeypatch):
    monkeypatch.setattr(runtime, "LINUX_CALLS", {})
    runtime.hold_cores()
    with runtime.in_background():
        assert runtime._scheduling() == runtime._Scheduling(size=0)


TAKES_TURNS = """
import sys, time
from pathlib import Path
from unfused.runtime import Turns

folder, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
turns, seen = Turns(folder), (folder / "seen").open("a", buffering=1)
print("ready", flush=True)
for _ in range(count):
    with turns:
        print(name, "in", file=seen)
        time.sleep(0.02)
        print(name, "out", file=seen)
"""


def taking_turns(folder, name, count):
    """A process that takes so many turns and writes them into `folder / "seen"`."""
    child = subprocess.Popen(
        [sys.executable, "-c", TAKES_TURNS, str(folder), name, str(count)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    return child


def test_two_runs_on_the_same_cores_compute_in_turns_and_never_at_once(tmp_path):
    with runtime.Turns(tmp_path):
        children = [taking_turns(tmp_path, name, 30) for name in "ab"]
        time.sleep(0.5)
        assert not (tmp_path / "seen").read_text()
    assert [child.wait(60) for child in children] == [0, 0]
    seen = (tmp_path / "seen").read_text().split()
    names = seen[::4]
    assert sorted(names) == ["a"] * 30 + ["b"] * 30
    assert seen == [word for name in names for word in (name, "in", name, "out")]
    # One after the other would be a single change.
    assert sum(one != other for one, other in pairwise(names)) > 20


def test_a_suspended_run_is_not_waited_for_and_has_its_turns_again_when_it_goes_on(
    tmp_path, monkeypatch
):
    turns, seen = runtime.Turns(tmp_path), tmp_path / "seen"
    monkeypatch.setattr(runtime, "LONGEST_TURN", 3.0)
    child = taking_turns(tmp_path, "child", 10_000)
    try:
        stopped_in_a_turn = False
        while not stopped_in_a_turn:
            os.kill(child.pid, signal.SIGCONT)
            time.sleep(0.005)
            os.kill(child.pid, signal.SIGSTOP)
            os.waitpid(child.pid, os.WUNTRACED)
            stopped_in_a_turn = seen.read_text().endswith("in\n")
        began = time.monotonic()
        with turns:
            assert time.monotonic() - began > 1.0
        began = time.monotonic()
        for _ in range(100):
            with turns:
                pass
        assert time.monotonic() - began < 1.0
        os.kill(child.pid, signal.SIGCONT)
        # From its next turn on it is waited for, and it waits.
        so_far = len(seen.read_text())
        while "in" not in seen.read_text()[so_far:]:
            time.sleep(0.005)
        for _ in range(20):
            with turns:
                during = seen.read_text()
                time.sleep(0.05)
                assert seen.read_text() == during and during.endswith("out\n")
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize(
    ("world", "device", "threads", "takes"),
    [(1, "cpu", 4, True), (2, "cpu", 4, False), (1, "cuda", 4, False), (1, "cpu", 2, False)],
)
def test_turns_are_taken_by_processes_that_have_all_cores_to_themselves(
    monkeypatch, world, device, threads, takes
):
    monkeypatch.setattr(runtime, "available_cpus", lambda: 4)
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    assert isinstance(runtime.turns(world, torch.device(device)), runtime.Turns) == takes


def test_without_a_place_for_the_file_nobody_takes_turns(monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "available_cpus", lambda: 4)
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "missing"))
    with runtime.turns(1, torch.device("cpu")):
        pass


def test_without_locks_in_that_place_nobody_takes_turns(monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(runtime, "available_cpus", lambda: 4)
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    monkeypatch.setattr("fcntl.lockf", no_locks)
    with runtime.turns(1, torch.device("cpu")):
        pass
