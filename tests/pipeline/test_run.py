"""What is ready is built side by side; what fails or is interrupted leaves nothing half done."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from fake_sessions import fake_pool
from small_searches import LAPTOP
from unfused import locks, pipeline, runtime, stages
from unfused.config import Config, RunOptions, override
from unfused.events import NodeFailed, NodeFinished, NodeStarted, Note, Stream
from unfused.pipeline.healing import MOST
from unfused.pipeline.run import Backend
from unfused.stages import Tasks, Workers
from unfused.store import Damaged, Facts, Kept

PATIENCE = 20.0


class Small(pipeline.Run):
    """A run whose stages are `acts`: what a node does, by its name, and when it had a worker."""

    def __init__(
        self, small_task, tmp_path, monkeypatch, acts, jobs: int = 2, *, strict: bool = False
    ) -> None:
        options = RunOptions(store=str(tmp_path / "store"), strict=strict)
        config = override(Config(), {"arms": ["floor", "scratch", "teacher"]})
        plan = pipeline.Plan(pipeline.Request(config, options, None, str(small_task)))
        self.seen: list = []
        self.acts, self.now, self.most = acts, 0, 0
        self.order: list[str] = []
        """Of what workers took."""
        self.counting = threading.Lock()
        super().__init__(plan, LAPTOP, Stream([self.seen.append]), record={})
        monkeypatch.setattr(plan, "artifact", lambda ref: ref.node)
        self._check_parts = lambda: None
        monkeypatch.setattr(plan, "_key", self._key)
        monkeypatch.setattr(stages, "get", self._stage)
        plan.refresh()
        self.cancelled = threading.Event()
        pool = fake_pool(tmp_path, monkeypatch, jobs)
        monkeypatch.setattr(pool, "cancel", self.cancelled.set)
        self.backend = Backend(SimpleNamespace(lease=lambda *_: nullcontext()), pool)

    def _key(self, step) -> str | None:
        there = all(self.plan.steps[name].manifest for name in step.reads)
        return step.node.name.replace("/", "-") if there else None

    def _stage(self, name: str) -> stages.Stage:
        access = Tasks if name in ("ingest", "teacher") else Workers
        together = name in ("ingest", "evaluate")
        return stages.Stage(1, Facts, access, self._act, together=together)

    def _act(self, builds, access) -> list[stages.Built]:
        for build in builds:
            build.out.write("made", b"")
            if isinstance(access, Tasks):
                self.acts.get(build.node, lambda: None)()
            else:
                access.run([lambda session, build=build: self._job(build, access)])
        return [stages.Built(Facts()) for _ in builds]

    def _job(self, build, access) -> None:
        with self.counting:
            self.now += 1
            self.most = max(self.most, self.now)
            self.order.append(build.node)
        try:
            if isinstance(began := self.acts.get(build.node, lambda: None)(), float):
                access.began = began
        finally:
            with self.counting:
                self.now -= 1

    def of(self, kind: type) -> list[str]:
        return [event.node for event in self.seen if isinstance(event, kind)]


@pytest.fixture
def run(small_task, tmp_path, monkeypatch):
    return lambda acts=None, **how: Small(small_task, tmp_path, monkeypatch, acts or {}, **how)


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_every_node_is_built_once_after_its_inputs_and_no_more_at_a_time_than_there_is_room(
    run, jobs
):
    one = run(jobs=jobs)
    one.execute(one.backend)
    started, finished = one.of(NodeStarted), one.of(NodeFinished)
    assert sorted(started) == sorted(finished) == sorted(one.plan.steps)
    assert one.most <= jobs
    order = [(type(event), event.node) for event in one.seen if hasattr(event, "node")]
    for name, step in one.plan.steps.items():
        for needed in step.reads:
            assert order.index((NodeFinished, needed)) < order.index((NodeStarted, name))


def test_what_needs_no_teacher_does_not_wait_for_it(run):
    side_by_side = threading.Barrier(2, timeout=PATIENCE)
    one = run({"pretrain": side_by_side.wait, "finetune/scratch": side_by_side.wait})
    one.execute(one.backend)
    assert not one.of(NodeFailed) and one.most == 2


def test_workers_take_what_a_person_waits_for_then_what_most_nodes_wait_for(run):
    one = run(jobs=1)
    one.execute(one.backend)
    chain = ["embed/statistics", "pretrain", "finetune/teacher"]
    assert [name for name in one.order if name in chain] == chain
    assert one.order.index("pretrain") < one.order.index("finetune/scratch")
    for arm in ("floor", "scratch", "teacher"):
        classifier = next(name for name in one.order if name.endswith(f"/{arm}"))
        then = one.order[one.order.index(classifier) + 1]
        assert then == f"evaluate/{arm}"


def test_what_many_nodes_wait_for_begins_beside_more_of_what_none_waits_for(run):
    """All workers' worth of less urgent nodes have begun: it waits for a worker, not for a node."""
    begun, go_on = threading.Event(), threading.Event()

    def scratch():
        begun.set()
        assert go_on.wait(PATIENCE)

    def pretrain():
        assert begun.wait(PATIENCE)
        go_on.set()

    one = run({"finetune/scratch": scratch, "pretrain": pretrain}, jobs=2)
    one.execute(one.backend)
    assert not one.of(NodeFailed)


def test_what_fails_is_told_and_what_runs_beside_it_is_asked_to_give_up(run):
    begun = threading.Event()

    def fail():
        assert begun.wait(PATIENCE)
        raise ValueError("no")

    def wait():
        begun.set()
        assert one.cancelled.wait(PATIENCE)
        raise runtime.Cancelled("cancelled")

    one = run({"pretrain": fail, "finetune/scratch": wait})
    kept = one.plan.store.checkpoints("finetune", "finetune-scratch")
    kept.write("epoch", b"")
    with pytest.raises(ValueError, match="no"):
        one.execute(one.backend)
    told = {event.node: event for event in one.seen if isinstance(event, NodeFailed)}
    assert told["pretrain"].reason == "no" and told["finetune/scratch"].given_up
    assert kept.exists("epoch"), "what did not fail is gone on with"
    work = one.plan.store.root / "work"
    assert not [info for info in work.files() if "pretrain" in info.path]


def test_a_run_that_nobody_wants_any_more_leaves_no_checkpoint(run):
    def give_up():
        one.cancel()
        raise runtime.Cancelled("cancelled")

    one = run({"finetune/scratch": give_up})
    kept = one.plan.store.checkpoints("finetune", "finetune-scratch")
    kept.write("epoch", b"")
    with pytest.raises(runtime.Cancelled):
        one.execute(one.backend)
    assert not kept.exists("epoch")


def test_what_was_interrupted_is_told_of_every_node_that_ran(run):
    begun, end = threading.Barrier(3, timeout=PATIENCE), threading.Event()

    def hang():
        begun.wait()
        end.wait(PATIENCE)

    one = run({"pretrain": hang, "finetune/scratch": hang, "fit/floor": begun.wait}, jobs=3)
    startable = one._startable

    def interrupted(running, most):
        if "fit/floor" in one.of(NodeFinished):
            raise KeyboardInterrupt
        return startable(running, most)

    one._startable = interrupted
    with pytest.raises(KeyboardInterrupt):
        one.execute(one.backend)
    failed = {event.node: event.reason for event in one.seen if isinstance(event, NodeFailed)}
    assert failed == {"pretrain": "interrupted", "finetune/scratch": "interrupted"}
    end.set()


def test_two_runs_of_one_command_on_one_store_build_every_node_once(run):
    built, meeting = [], threading.Barrier(2, timeout=PATIENCE)

    def act(name: str):
        return lambda: (built.append(name), time.sleep(0.05))

    def execute(one: Small) -> None:
        meeting.wait()
        one.execute(one.backend)

    runs = [run() for _ in range(2)]
    for one in runs:
        one.acts |= {name: act(name) for name in one.plan.steps}
        _with_leases(one)
    threads = [threading.Thread(target=execute, args=(one,), daemon=True) for one in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(built) == sorted(runs[0].plan.steps)
    assert not any(one.plan.missing for one in runs)
    assert not list((runs[0].plan.store.root / "work").local.iterdir())


def test_a_run_has_ended_when_it_holds_no_lease_any_more(run, monkeypatch):
    release = locks.Lock.release

    def slowly(self) -> None:
        time.sleep(0.2)
        release(self)

    monkeypatch.setattr(locks.Lock, "release", slowly)
    one = run()
    _with_leases(one)
    one.execute(one.backend)
    assert not list((one.plan.store.root / "work").local.iterdir())


@pytest.mark.parametrize("why", ["cancelled", "failed"])
def test_a_run_that_waits_for_another_one_can_be_ended(run, why):
    waits = threading.Event()

    def fail():
        assert waits.wait(PATIENCE)
        raise ValueError("no")

    def watch(event) -> None:
        if isinstance(event, Note):
            waits.set()
            if why == "cancelled":
                one.cancel()

    one = run({"finetune/scratch": fail} if why == "failed" else {})
    one.stream.subscribe(watch)
    _with_leases(one)
    with (
        locks.held(one.plan.store.root.local / "work" / "pretrain-pretrain"),
        pytest.raises(ValueError if why == "failed" else runtime.Cancelled),
    ):
        one.execute(one.backend)
    assert "pretrain" not in one.of(NodeStarted)


def _with_leases(one: Small) -> None:
    cluster = runtime.Cluster(None, None, one.stream, LAPTOP, RunOptions())
    one.backend = Backend(cluster, one.backend.pool)


def _damage(one: Small, stage: str, key: str):
    (one.plan.store.folder(stage, key).local / "made").write_bytes(b"other")


def test_a_failure_that_comes_of_a_damaged_input_builds_the_input_again(run):
    calls = []

    def fail_once():
        calls.append(1)
        if len(calls) == 1:
            _damage(one, "pretrain", "pretrain")
            raise ValueError("nonsense was read")

    one = run({"finetune/teacher": fail_once})
    one.execute(one.backend)
    assert one.of(NodeFinished).count("pretrain") == 2 and len(calls) == 2
    (note,) = [event.text for event in one.seen if isinstance(event, Note)]
    assert note.startswith("pretrain/pretrain of the store was damaged (made: 5 bytes of 0)")
    aside = [info.path for info in (one.plan.store.root / "damaged").files()]
    assert sorted(path.rpartition("/")[2] for path in aside) == ["made", "manifest.json"]
    assert not one.plan.missing and not one.plan.store.check("pretrain", "pretrain")


def test_an_input_that_is_damaged_again_and_again_ends_the_run(run):
    def fail():
        _damage(one, "pretrain", "pretrain")
        raise ValueError("nonsense was read")

    one = run({"finetune/teacher": fail})
    with pytest.raises(ValueError, match="nonsense"):
        one.execute(one.backend)
    assert one.of(NodeFinished).count("pretrain") == 1 + MOST


def test_a_strict_run_ends_where_an_input_is_damaged(run):
    def fail():
        _damage(one, "pretrain", "pretrain")
        raise ValueError("nonsense was read")

    one = run({"finetune/teacher": fail}, strict=True)
    with pytest.raises(Damaged, match="made"):
        one.execute(one.backend)


def test_a_folder_without_its_manifest_is_set_aside_and_told(run):
    one = run()
    place = one.plan.store.folder("pretrain", "pretrain").local
    place.mkdir(parents=True)
    (place / "left").write_bytes(b"half")
    one.execute(one.backend)
    (note,) = [event.text for event in one.seen if isinstance(event, Note)]
    assert "pretrain/pretrain of the store was damaged (manifest.json: it is not there)" in note
    assert not one.plan.store.check("pretrain", "pretrain")


def test_a_strict_run_ends_at_a_folder_without_its_manifest(run):
    one = run(strict=True)
    one.plan.store.folder("pretrain", "pretrain").local.mkdir(parents=True)
    with pytest.raises(Damaged, match="it is not there"):
        one.execute(one.backend)


def test_what_is_found_damaged_when_all_is_built_is_built_again(run):
    one, read = run(), []

    def look():
        read.append(1)
        if len(read) == 1:
            _damage(one, "fit", "fit-floor")
            folder = Kept.of_manifest(*_kept(one, "fit", "fit-floor"))
            folder.read("made")
        return "told"

    assert one.execute_and(look, one.backend) == "told"
    assert one.of(NodeFinished).count("fit/floor") == 2 and len(read) == 2


def _kept(one: Small, stage: str, key: str):
    folder = one.plan.store.folder(stage, key)
    return folder, folder.read_json("manifest.json")


def test_what_a_node_has_waited_for_workers_is_no_time_of_its_own(run):
    def waited() -> float:
        time.sleep(0.5)
        return time.time()

    small = run({"finetune/scratch": waited, "pretrain": lambda: time.sleep(0.5)})
    small.execute(small.backend)
    took = {event.node: event.seconds for event in small.seen if isinstance(event, NodeFinished)}
    assert took["pretrain"] >= 0.5 > took["finetune/scratch"]
