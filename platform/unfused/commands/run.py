"""`unfused run`, once its request is understood: plan, build, track, show.

The rule of this file: `--dry-run` plans like a run, and builds and writes nothing.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from typing import Any

from rich.console import Console

from unfused import arms, cores, display, report, runtime, tracking
from unfused.commands.ending import announcing_end
from unfused.events import Stream
from unfused.pipeline import Plan, Recorder, Ref, Request, Run


def show_plan(request: Request) -> None:
    """Print node, key, hit or miss, and what it asks of the cluster; builds nothing."""
    hardware = runtime.probe(request.options)
    plan = Plan(resolved(request, hardware))
    run = Run(plan, hardware, Stream())
    run.check_fit()
    rows = [
        (s.node.name, s.key or "", s.status, "" if s.manifest else runtime.shown(run.needs(s)))
        for s in plan.steps.values()
    ]
    console = display.make_console()
    console.print(display.plan_table(rows))
    missing = len(plan.missing)
    console.print(f"{len(rows) - missing} hits, {missing} to build.")


def resolved(request: Request, hardware: runtime.Hardware) -> Request:
    """The request with every `auto` settled."""
    return replace(request, config=runtime.resolve(request.config, hardware))


def run_pipeline(request: Request) -> dict[str, Any]:
    """Plan, build what is missing, track it, and show the arms; returns the summary."""
    console = display.make_console()
    hardware = runtime.probe(request.options)
    request = resolved(request, hardware)
    plan = Plan(request)
    stream = Stream()
    run = Run(plan, hardware, stream)
    run.check_fit()
    uri = tracking.initialise(request.options.tracking_uri)
    tracker = tracking.Tracker(uri, request.options.experiment, request.options.store)
    stream.subscribe(tracker)
    stream.subscribe(Recorder(plan, run.id))
    shown = display.for_terminal(console)
    stream.subscribe(shown)
    result: dict[str, Any] = {}
    with closing(tracker):
        with announcing_end(stream, shown, result):
            began = time.monotonic()
            with cores.PeakMemory() as memory:
                run.execute()
            result |= report.summarize(plan)
            result["run"] = {
                "seconds": round(time.monotonic() - began, 1),
                "jobs": runtime.jobs_at_once(request.options, hardware),
                "peak_memory_gib": round(memory.peak / 2**30, 2),
            }
        result["mlflow"] = tracker.describe()
        _register(plan, tracker)
    _show_result(console, plan, result, uri)
    return result


def _register(plan: Plan, tracker: tracking.Tracker) -> None:
    """Register the classifier of the arm that was chosen in the first draw."""
    arm = arms.ARMS[report.chosen_by_draw(plan)[0]]
    artifact = plan.artifact(Ref(f"{plan.repetitions[0]}{arm.classifier}"))
    tracker.register(artifact.folder, artifact.facts, plan.request.options.experiment)


def _show_result(console: Console, plan: Plan, result: dict[str, Any], uri: str) -> None:
    console.print()
    console.print(display.arms_table(result))
    console.print()
    for line in display.choice_lines(result):
        console.print(line, highlight=False)
    took = result["run"]
    console.print(
        f"took       {display.clock(took['seconds'])}, {took['jobs']} jobs at a time,"
        f" {took['peak_memory_gib']:.1f} GiB of memory here at most",
        highlight=False,
    )
    console.print(f"artifacts  {plan.store.root.uri}", highlight=False)
    console.print(f"compare    {tracking.ui_command(uri)}", highlight=False)
