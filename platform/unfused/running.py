"""What `unfused run` does once its request is understood: plan, build, track, show.

The rule of this room: it joins the rooms below and decides nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

from rich.console import Console

from unfused import display, report, runtime, tracking
from unfused.events import RunFinished, Stream
from unfused.pipeline import Plan, Request, Run


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
    missing = sum(status != "hit" for _, _, status, _ in rows)
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
    shown = display.for_terminal(console)
    stream.subscribe(shown)
    result: dict[str, Any] = {}
    with closing(tracker):
        with reported(stream, shown, result):
            run.execute()
            result |= report.summarize(plan)
        result["mlflow"] = tracker.describe()
        _register(plan, tracker)
    _show_result(console, plan, result, uri)
    return result


@contextmanager
def reported(
    stream: Stream, shown: display.Plain | display.Live, summary: dict[str, Any] | None = None
) -> Iterator[None]:
    """Tell a stream how the body ended: finished, killed, or failed and why.

    Args:
        stream: of the run.
        shown: its display, which ends with it.
        summary: what the body fills for the subscribers.
    """
    status, reason = "FAILED", ""
    try:
        yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except Exception as error:
        reason = str(error)
        raise
    finally:
        shown.close()
        stream.emit(RunFinished(status, summary or None, reason))


def _register(plan: Plan, tracker: tracking.Tracker) -> None:
    """Register the classifier of the method itself, or of the last arm asked for."""
    arms = plan.request.config.arms
    arm = "unfused" if "unfused" in arms else arms[-1]
    node = f"{plan.repetitions[0]}finetune/{arm}"
    artifact = plan.artifact(node)
    tracker.register(artifact.folder, artifact.facts, plan.request.options.experiment)


def _show_result(console: Console, plan: Plan, result: dict[str, Any], uri: str) -> None:
    console.print()
    console.print(display.arms_table(result))
    console.print()
    console.print(f"artifacts  {plan.store.root.uri}", highlight=False)
    console.print(f"compare    {tracking.ui_command(uri)}", highlight=False)
