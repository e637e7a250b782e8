"""What `unfused search` does once its request is understood: search, track, show.

The rule of this room: it joins the rooms below and decides nothing else.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.markup import escape

from unfused import config as configuration
from unfused import display, runtime, tracking
from unfused.config import Config
from unfused.events import Event, OfTrial, RunFinished, RunStarted, Stream, TrialEnded
from unfused.running import reported, resolved
from unfused.search import Runner, Search
from unfused.search import concurrency as what_fits


def run_search(search: Search, concurrency: int | None, dry_run: bool) -> dict[str, Any] | None:
    """Run or go on with a search, and show its best trials; returns its summary.

    Args:
        search: what was asked for.
        concurrency: trials at a time; None is as many as there are devices for.
        dry_run: only say what all trials share, and what may change.
    """
    console = display.make_console()
    hardware = runtime.probe(search.request.options)
    if concurrency is None:
        concurrency = what_fits(search, hardware)
    options = search.request.options.model_copy(update={"concurrency": concurrency})
    request = replace(resolved(search.request, hardware), options=options)
    search = replace(search, request=request)
    hardware = runtime.probe(options)
    stream = Stream()

    def new_tracker(number: int) -> tracking.Tracker:
        return tracking.Tracker(
            uri,
            options.experiment,
            options.store,
            parent=tracker.describe()["run_id"],
            name=f"{search.name} trial {number}",
            kind="trial",
        )

    trials = Trials(new_tracker)
    runner = Runner(search, hardware, stream)
    runner.check()
    if dry_run:
        show_search(console, runner)
        return None
    uri = tracking.initialise(options.tracking_uri)
    tracker = tracking.Tracker(
        uri, options.experiment, options.store, name=search.name, kind="search"
    )
    stream.subscribe(tracker)
    stream.subscribe(trials)
    shown = display.for_terminal(console)
    stream.subscribe(shown)
    with closing(tracker), reported(stream, shown):
        with closing(trials):
            result = runner.execute()
        files = {name: search.folder.read(name) for name in result["files"]}
        tracker.end_search(dict(result), files)
        result["mlflow"] = tracker.describe()
    _show_search_result(console, search, result, uri, runtime.resolve(Config(), hardware))
    return result


class Trials:
    """The trackers of a search's trials.

    Args:
        new: makes the tracker of trial n.
    """

    def __init__(self, new: Callable[[int], tracking.Tracker]) -> None:
        self._new = new
        self._trackers: dict[int, tracking.Tracker] = {}
        self._running: set[int] = set()

    def __call__(self, event: Event) -> None:
        """Record an event of a trial, or tag what came of it."""
        match event:
            case OfTrial(number, inner):
                self._record(number, inner)
            case TrialEnded() if event.number in self._trackers:
                self._trackers[event.number].tag({"state": event.state})

    def _record(self, number: int, event: Event) -> None:
        if number not in self._trackers:
            self._trackers[number] = self._new(number)
        self._trackers[number](event)
        if isinstance(event, RunStarted):
            self._running.add(number)
            self._trackers[number].tag({"trial": number})
        if isinstance(event, RunFinished):
            self._running.discard(number)

    def close(self) -> None:
        """End the runs of trials that nothing ended, and wait until all is written."""
        for number in sorted(self._running):
            self._trackers[number](RunFinished("KILLED"))
        for tracker in self._trackers.values():
            tracker.close()


def show_search(console: Console, runner: Runner) -> None:
    """Print what every trial shares and what may change; builds nothing."""
    rows = [(s.node.name, s.key or "", s.status, "") for s in runner.plan.steps.values()]
    console.print(display.plan_table(rows))
    console.print("Built once for all trials. What may change:")
    for key, distribution in runner.search.space.distributions.items():
        console.print(f"  {key}  {distribution}", highlight=False)


def _show_search_result(
    console: Console, search: Search, result: dict[str, Any], uri: str, defaults: Config
) -> None:
    best, test = result["best"], result["test"]["arms"]["unfused"]["accuracy"]
    labels = result["labels"]
    console.print()
    console.print(display.trials_table(result))
    console.print()
    if result["importances"]:
        parts = [f"{name} {share:.2f}" for name, share in result["importances"].items()]
        console.print(f"importance  {', '.join(parts)}", highlight=False)
    chose = f" and {labels['valid']} of validation clips, which chose" if labels["valid"] else ""
    console.print(f"labels      {labels['train']} of training clips a draw{chose}", highlight=False)
    console.print(
        f"saved       {result['saved_seconds']:.0f} s of stages that trials found in the store",
        highlight=False,
    )
    console.print(
        f"best        trial {best['number']}: test accuracy {test['mean']:.3f} ± {test['sd']:.3f}",
        highlight=False,
    )
    again = escape(best_command(search, best["line"], defaults))
    console.print(f"reproduce   {again}", highlight=False)
    console.print(f"results     {result['folder']}", highlight=False)
    console.print(f"compare     {tracking.ui_command(uri)}", highlight=False)


def best_command(search: Search, line: str, defaults: Config) -> str:
    """The pipeline command that gives the best trial's validation score, if any, again."""
    request, options = search.request, search.request.options
    words = ["python", "pipelines/full.py"]
    for name in ("corpus", "task"):
        if value := getattr(request, name):
            words += [f"--{name}", value]
    words += ["--store", options.store] if options.store != "store" else []
    words += ["--seeds", str(request.seeds)] if request.seeds > 1 else []
    words += ["--folds"] if request.folds else []
    pairs = [*shlex.split(line), "arms=[unfused]"]
    if search.space.is_labelled:
        pairs.append("evaluate.split=valid")
    changed = {pair.partition("=")[0] for pair in pairs} | {"evaluate.split"}
    base, config = configuration.flatten(defaults), request.config
    words += [
        f"{key}={configuration.shown(value)}"
        for key, value in configuration.flatten(config).items()
        if value != base[key] and key not in changed
    ]
    return shlex.join([*words, *pairs])
