"""`unfused search`, once its request is understood: search, track, show.

The rule of this file: the command that it prints gives the best trial's validation score again.
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
from unfused import display, runtime, secrets, terminal, tracking
from unfused.commands.ending import announcing_end
from unfused.commands.run import clip_notes, refusing, resolved
from unfused.commands.trials import TrialTrackers
from unfused.config import Config
from unfused.events import Stream
from unfused.store import Folder, Store
from unfused.tuning import SearchRequest, SearchRun
from unfused.tuning import concurrency as what_fits


def run_search(
    search: SearchRequest,
    concurrency: int | None,
    keep: Callable[[dict[str, Any]], None] = lambda summary: None,
) -> dict[str, Any]:
    """Run or go on with a search, and show its best trials; returns its summary.

    Args:
        search: what was asked for.
        concurrency: trials at a time; None is as many as there are devices for.
        keep: is handed the summary before anything of it is shown.
    """
    console = display.make_console()
    search, hardware = settled(search, concurrency)
    stream = Stream()
    run = SearchRun(search, hardware, stream)
    run.check()
    uri = tracking.initialise(search.request.options.tracking_uri)
    run.plan.store.check_writable()
    runtime.prepare()
    tracker = new_tracker(uri, search, name=search.name, kind="search")

    def of_trial(number: int) -> tracking.Tracker:
        name, parent = f"{search.name} {number}", tracker.promise
        settings = tuple(search.space.distributions)
        of = {"kind": "trial", "parent": parent, "trial": number, "settings": settings}
        return new_tracker(uri, search, name=name, **of)

    chosen = {*search.request.chosen, *search.space.distributions}
    trials, shown = TrialTrackers(of_trial), terminal.for_terminal(console, chosen)
    for listener in (tracker, trials, shown):
        stream.subscribe(listener)
    for note in clip_notes(run.search.request, run.plan.inputs):
        stream.emit(note)
    with closing(tracker), announcing_end(stream, shown):
        with closing(trials), refusing(tracker), run.plan.store.telling():
            result = run.execute()
        files = {name: search.folder.read(name) for name in result["files"]}
        tracker.end_search(dict(result), files)
        result["mlflow"] = tracker.describe()
    keep(result)
    _show_search_result(console, search, result, uri, runtime.resolve(Config(), hardware))
    return result


def settled(
    search: SearchRequest, concurrency: int | None
) -> tuple[SearchRequest, runtime.Hardware]:
    """The search with every `auto` and its concurrency settled, and the hardware for that many."""
    Store.at(search.request.options.store).check_readable()
    hardware = runtime.probe(search.request.options)
    if concurrency is None:
        concurrency = what_fits(search, hardware)
    options = search.request.options.model_copy(update={"concurrency": concurrency})
    request = replace(resolved(search.request, hardware), options=options)
    return replace(search, request=request), runtime.probe(options)


def new_tracker(uri: str, search: SearchRequest, **what: Any) -> tracking.Tracker:
    """A tracker in the search's experiment."""
    options = search.request.options
    demo = (Folder.of(options.store) / "demo").uri
    places = tracking.places(search.request, demo)
    return tracking.Tracker(uri, options.experiment, options.store, places=places, **what)


def show_search(search: SearchRequest, concurrency: int | None) -> dict[str, Any]:
    """Print what every trial shares and what may change, and return it; builds nothing."""
    console = display.make_console()
    search = replace(search, request=replace(search.request, dry=True))
    run = SearchRun(*settled(search, concurrency), Stream())
    run.check()
    rows = [(s.node.name, s.key or "", s.status, "") for s in run.plan.steps.values()]
    for note in clip_notes(run.search.request, run.plan.inputs):
        console.print(display.note_line(note), markup=False, highlight=False)
    console.print(display.plan_table(rows))
    console.print("Built once for all trials. What may change:")
    for key, distribution in run.search.space.distributions.items():
        console.print(f"  {key}  {distribution}", highlight=False, markup=False)
    shared = [dict(zip(("node", "key", "status"), row[:3], strict=True)) for row in rows]
    space = {key: str(one) for key, one in run.search.space.distributions.items()}
    return {"shared": shared, "space": space}


def _show_search_result(
    console: Console, search: SearchRequest, result: dict[str, Any], uri: str, defaults: Config
) -> None:
    best, test = result["best"], result["test"]["arms"][search.space.judged]["accuracy"]
    labels = result["labels"]
    console.print()
    console.print(display.trials_table(result))
    console.print()
    if result["importances"]:
        parts = [f"{name} {share:.2f}" for name, share in result["importances"].items()]
        console.print(f"importance  {', '.join(parts)}", markup=False, highlight=False)
    chose = f" and {labels['valid']} of validation clips, which chose" if labels["valid"] else ""
    console.print(f"labels      {labels['train']} of training clips a draw{chose}", highlight=False)
    console.print(
        f"saved       {result['saved_seconds']:.0f} s of stages that trials found in the store",
        highlight=False,
    )
    console.print(
        f"best        trial {best['number']}: {search.space.judged}, test accuracy"
        f" {display.mean_and_sd(test)}",
        highlight=False,
    )
    again = escape(secrets.command(best_command(search, best["line"], defaults)))
    console.print(f"reproduce   {again}", highlight=False)
    console.print(f"results     {escape(result['folder'])}", highlight=False)
    console.print(f"compare     {escape(tracking.ui_command(uri))}", highlight=False)
    if experiment := result["mlflow"]["experiment_id"]:
        address = tracking.ui_address(uri, experiment, trials=True)
        console.print(f"            {escape(address)}", highlight=False, soft_wrap=True)


def best_command(search: SearchRequest, line: str, defaults: Config) -> str:
    """The pipeline command that gives the best trial's validation score, if any, again."""
    request, options = search.request, search.request.options
    words = ["unfused", "run"]
    for name in ("corpus", "task"):
        if value := getattr(request, name):
            words += [f"--{name}", value]
    words += request.columns.words
    words += [word for spec in request.specs for word in ("--teacher", spec)]
    words += ["--store", options.store] if options.store != "store" else []
    words += ["--seeds", str(request.seeds)] if request.seeds > 1 else []
    words += ["--folds"] if request.folds else []
    pairs = [*shlex.split(line), f"arms=[{search.space.judged}]"]
    if search.space.labels == "valid":
        pairs.append("evaluate.split=valid")
    changed = {pair.partition("=")[0] for pair in pairs} | {"evaluate.split"}
    best = configuration.override(request.config, configuration.parse_overrides(pairs))
    words += [
        f"{key}={configuration.shown(value)}"
        for key, value in configuration.difference(defaults, best).items()
        if key not in changed
    ]
    return shlex.join([*words, *pairs])
