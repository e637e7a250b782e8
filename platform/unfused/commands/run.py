"""`unfused run`, once its request is understood: plan, build, track, show.

The rule of this file: `--dry-run` plans like a run, and builds and writes nothing.
"""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

from rich.console import Console

from unfused import (
    cores,
    corpora,
    data,
    display,
    inference,
    report,
    runtime,
    secrets,
    terminal,
    tracking,
)
from unfused.arms import ARMS, STUDENT
from unfused.commands.ending import announcing_end
from unfused.config import ConfigError, DrawConfig
from unfused.corpora.clip import Clip
from unfused.events import Note, Stream
from unfused.pipeline import Inputs, Plan, Recorder, Request, Run, leave_model
from unfused.store import Folder, Store

MOST_NAMED = 10
"""Classes with too few clips that one line has room for."""
MOST_NODES = 1000
"""That a table shows; further seeds and folds have the same."""


def show_plan(request: Request) -> list[dict[str, str]]:
    """Print node, key, hit or miss, and what it asks of the cluster, and return it; builds
    nothing."""
    hardware = runtime.probe(request.options)
    Store.at(request.options.store).check_readable()
    plan = Plan(replace(resolved(request, hardware), dry=True))
    run = Run(plan, hardware, Stream())
    run.check_fit()
    plan.check_early()
    rows = [
        (s.node.name, s.key or "", s.status, "" if s.manifest else runtime.shown(run.needs(s)))
        for s in plan.steps.values()
    ]
    console = display.make_console()
    for note in clip_notes(plan.request, plan.inputs):
        console.print(display.note_line(note), markup=False, highlight=False)
    console.print(display.plan_table(rows[:MOST_NODES]))
    if more := len(rows[MOST_NODES:]):
        console.print(f"and {more} nodes more; --json lists them all.", highlight=False)
    for place, damage in plan.damaged.items():
        told = f"{place} is damaged ({damage.file}: {damage.what}); a run builds it again"
        note = Note(told, level="warning")
        console.print(display.note_line(note), markup=False, highlight=False)
    missing = len(plan.missing)
    console.print(f"{len(rows) - missing} hits, {missing} to build.")
    return [dict(zip(("node", "key", "status", "asks_for"), row, strict=True)) for row in rows]


def resolved(request: Request, hardware: runtime.Hardware) -> Request:
    """The request with every `auto` settled."""
    return replace(request, config=runtime.resolve(request.config, hardware))


def clip_notes(request: Request, inputs: Inputs) -> list[Note]:
    """What was done while clips were listed, the clips of every split and class, and a warning
    where the score would be in doubt."""
    tasks = [task.clips for task in inputs.tasks]
    short = _short_line(request.config.finetune, tasks)
    notes = [Note(line) for line in (*inputs.notes, *corpora.count_lines(tasks), *short)]
    warnings = corpora.warnings(tasks, request.config.evaluate.split)
    return [*notes, *(Note(told, level="warning") for told in warnings)]


def _short_line(budget: DrawConfig, tasks: Sequence[Sequence[Clip]]) -> list[str]:
    """What classes have too few training clips for the labels of a draw, if any."""
    trains = [[clip.label for clip in clips if clip.split == "train"] for clips in tasks]
    counts = [Counter(map(str, labels)) for labels in trains]
    fewest = {name: min(one[name] for one in counts) for name in set().union(*counts)}
    short = data.short_classes(fewest, budget)
    if not short:
        return []
    shown = [f"{name} {count}" for name, count in list(short.items())[:MOST_NAMED]]
    more = [f"and {left} more classes"] if (left := len(short) - len(shown)) else []
    return [
        f"labels     up to {budget.labels_per_class} of each class in a draw, all of those that"
        f" have fewer training clips: {', '.join([*shown, *more])}"
    ]


def run_pipeline(
    request: Request, keep: Callable[[dict[str, Any]], None] = lambda summary: None
) -> dict[str, Any]:
    """Plan, build what is missing, track it, and show the arms; returns the summary.

    Args:
        request: what was asked for.
        keep: is handed the summary before anything of it is shown.
    """
    console = display.make_console()
    with terminal.busy(console, "listing clips, opening MLflow"):
        hardware = runtime.probe(request.options)
        request = resolved(request, hardware)
        Store.at(request.options.store).check_readable()
        plan = Plan(request)
        stream = Stream()
        run = Run(plan, hardware, stream)
        run.check_fit()
        plan.check_early()
        uri = tracking.initialise(request.options.tracking_uri)
        plan.store.check_writable()
        if plan.missing:
            runtime.prepare()
        tracker = _tracker(uri, plan, hardware)
    stream.subscribe(tracker)
    recorder = Recorder(plan, run.id)
    stream.subscribe(recorder)
    shown = terminal.for_terminal(console, request.chosen)
    stream.subscribe(shown)
    for note in clip_notes(plan.request, plan.inputs):
        stream.emit(note)
    result: dict[str, Any] = {}

    def reported() -> tuple[dict[str, Any], dict[str, str]]:
        recorder.write_clips()
        return report.summarize(plan), _leave_models(plan, run.id, stream)

    with closing(tracker):
        with announcing_end(stream, shown, result):
            began = time.monotonic()
            with cores.PeakMemory() as memory, refusing(tracker), plan.store.telling():
                found, models = run.execute_and(reported)
            result |= found
            result["run"] = {
                "id": run.id,
                "seconds": round(time.monotonic() - began, 1),
                "jobs": runtime.jobs_at_once(request.options, hardware),
                "peak_memory_gib": round(memory.peak / 2**30, 2),
            }
            result["models"] = models
        result["mlflow"] = tracker.describe()
        _register(plan, result["models"], tracker)
    keep(result)
    _show_result(console, plan, result, uri)
    return result


@contextmanager
def refusing(tracker: tracking.Tracker) -> Iterator[None]:
    """Have a refusal by what a run has read leave no failed run."""
    try:
        yield
    except ConfigError as error:
        tracker.refuse(str(error))
        raise


def _tracker(uri: str, plan: Plan, hardware: runtime.Hardware) -> tracking.Tracker:
    """A tracker of a run that is called after its task and what differs from its preset."""
    request = plan.request
    name, settings = tracking.of_request(request, lambda one: runtime.resolve(one, hardware))
    places = tracking.places(request, (plan.store.root / "demo").uri)
    named = {"name": name, "settings": settings, "places": places}
    return tracking.Tracker(uri, request.options.experiment, request.options.store, **named)


def _leave_models(plan: Plan, run: str, stream: Stream) -> dict[str, str]:
    """Folders of the models that a run leaves, by arm: the chosen one first; where that is a pool
    of teachers, the student of them too, which is one network."""
    chosen, student = report.chosen_by_draw(plan)[0], STUDENT.name
    arms = [chosen]
    if ARMS[chosen].source == "probes" and student in plan.request.config.arms:
        arms.append(student)

    def tell(text: str) -> None:
        stream.emit(Note(text, level="warning"))

    return {arm: leave_model(plan, arm, run, tell).uri for arm in arms}


def _register(plan: Plan, models: dict[str, str], tracker: tracking.Tracker) -> None:
    """Register the model of the chosen arm, and show what it says.

    The demo has a registered model of its own, so that it adds no version to one that is in use.
    """
    chosen, folder = next((arm, Folder.of(uri)) for arm, uri in models.items())
    if any(step.status == "built" for step in plan.steps.values()):
        tracker.show(tracking.said(plan, chosen))
    inputs = plan.steps[f"{plan.repetitions[0]}{ARMS[chosen].classifier}"].node.inputs
    taught = plan.artifact(inputs["clips"]).facts.digest
    name = plan.request.options.experiment if plan.request.task else "demo"
    tracker.register(tracking.Classifier(folder, inference.read_facts(folder), taught), name)


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def _show_result(console: Console, plan: Plan, result: dict[str, Any], uri: str) -> None:
    console.print()
    console.print(display.arms_table(result))
    console.print()
    for line in display.choice_lines(result):
        console.print(line, markup=False, highlight=False)
    took = result["run"]
    console.print(
        f"took       {display.clock(took['seconds'])}, {_jobs(took['jobs'])} at a time,"
        f" {took['peak_memory_gib']:.1f} GiB of memory here at most",
        highlight=False,
    )
    models = [f"{folder} ({arm})" for arm, folder in result["models"].items()]
    first = shlex.quote(next(iter(result["models"].values())))
    lines = [
        ("artifacts", plan.store.root.uri),
        *(("model", told) for told in models),
        ("label", secrets.command(f"unfused predict {first} CLIPS...")),
        ("compare", tracking.ui_command(uri)),
    ]
    if experiment := result["mlflow"]["experiment_id"]:
        lines.append(("", tracking.ui_address(uri, experiment)))
    for name, told in lines:
        console.print(f"{name:9}  {told}", markup=False, highlight=False, soft_wrap=True)
