"""What `unfused search` does once its request is understood: search, track, show.

The rule of this room: it joins the rooms below and decides nothing else.
"""

from __future__ import annotations

import shlex
from contextlib import closing
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.markup import escape

from unfused import config as configuration
from unfused import display, runtime, tracking
from unfused.config import Config
from unfused.events import Event, Stream, TrialEnded
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
    trackers: dict[int, tracking.Tracker] = {}

    def tracker_of(number: int) -> tracking.Tracker:
        if number not in trackers:
            trackers[number] = tracking.Tracker(
                uri,
                options.experiment,
                options.store,
                parent=tracker.describe()["run_id"],
                name=f"{search.name} trial {number}",
                kind="trial",
            )
        return trackers[number]

    runner = Runner(search, hardware, stream, tracker_of)
    runner.check()
    if dry_run:
        show_search(console, runner)
        return None
    uri = tracking.initialise(options.tracking_uri)
    tracker = tracking.Tracker(
        uri, options.experiment, options.store, name=search.name, kind="search"
    )
    stream.subscribe(tracker)
    stream.subscribe(lambda event: _tag_trial(trackers, event))
    shown = display.for_terminal(console)
    stream.subscribe(shown)
    with closing(tracker), reported(stream, shown):
        try:
            result = runner.execute()
            files = {name: search.folder.read(name) for name in result["files"]}
            tracker.end_search(result["best"]["number"], search.folder.uri, files)
            result["mlflow"] = tracker.describe()
        finally:
            for one in trackers.values():
                one.close()
    _show_search_result(console, search, result, uri, runtime.resolve(Config(), hardware))
    return result


def _tag_trial(trackers: dict[int, tracking.Tracker], event: Event) -> None:
    if isinstance(event, TrialEnded) and event.number in trackers:
        trackers[event.number].tag({"trial": event.number, "state": event.state})


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
    console.print(
        f"labels      {labels['train']} of training clips a draw and {labels['valid']} of"
        " validation clips, which chose",
        highlight=False,
    )
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
    """The pipeline command that gives the best trial's validation score again."""
    request, options = search.request, search.request.options
    words = ["python", "pipelines/full.py"]
    for name in ("corpus", "task"):
        if value := getattr(request, name):
            words += [f"--{name}", value]
    words += ["--store", options.store] if options.store != "store" else []
    words += ["--seeds", str(request.seeds)] if request.seeds > 1 else []
    words += ["--folds"] if request.folds else []
    changed = {pair.partition("=")[0] for pair in line.split()}
    base, config = configuration.flatten(defaults), request.config
    words += [
        f"{key}={configuration.shown(value)}"
        for key, value in configuration.flatten(config).items()
        if value != base[key] and key not in changed and key != "arms"
    ]
    return f"{shlex.join(words)} {line} arms=[unfused] evaluate.split=valid"
