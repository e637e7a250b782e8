"""The `unfused` command; `pipelines/*.py` are thin doors to the same functions.

The rule of this room: a wrong request is one sentence and exit status 2, with nothing written; a
run that fails says so and exits 1, and the same command resumes it.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from unfused import config as configuration
from unfused import display, report
from unfused.config import Config, ConfigError
from unfused.events import RunFinished, Stream, TrialEnded
from unfused.pipeline import Plan, Request, Run

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Learn audio classifiers from few labels."
)


Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[section.key=value]...", show_default=False)
]
Corpus = Annotated[str | None, typer.Option(help="Unlabelled clips (as --task).")]
Task = Annotated[str | None, typer.Option(help="Labelled clips: manifest or folder.")]
Store = Annotated[str, typer.Option(help="Folder or URI of the artifacts.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(help="MLflow; default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db."),
]
Experiment = Annotated[str, typer.Option(help="MLflow experiment.")]
Preset = Annotated[str, typer.Option(help="recommended, faithful or demo.")]
Seeds = Annotated[int, typer.Option(min=1, help="Repetitions of the learned stages.")]
Folds = Annotated[bool, typer.Option("--folds", help="Cross-validate over `fold`.")]
NumWorkers = Annotated[int, typer.Option(min=1, help="Ray Train workers.")]
GpusPerWorker = Annotated[
    float | None, typer.Option(min=0, help="Default: one where the cluster has any.")
]
Summary = Annotated[Path | None, typer.Option(help="Write the numbers here (JSON).")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be built.")]


@app.command(context_settings={"allow_interspersed_args": True})
def run(
    overrides: Overrides = None,
    corpus: Corpus = None,
    task: Task = None,
    store: Store = "store",
    tracking_uri: TrackingUri = None,
    experiment: Experiment = "unfused",
    preset: Preset = "recommended",
    seeds: Seeds = 1,
    folds: Folds = False,
    num_workers: NumWorkers = 1,
    gpus_per_worker: GpusPerWorker = None,
    summary: Summary = None,
    dry_run: DryRun = False,
) -> None:
    """Run the whole pipeline: pretrain, embed, cluster, distill, finetune, evaluate."""
    quiet_libraries()
    options = configuration.run_options(
        store=store,
        tracking_uri=tracking_uri,
        experiment=experiment,
        num_workers=num_workers,
        gpus_per_worker=gpus_per_worker,
    )
    config = _configuration(preset, overrides)
    request = Request(config, options, corpus, task, seeds, folds)
    check_summary(summary)
    if dry_run:
        show_plan(request)
        return
    write_summary(summary, run_pipeline(request))


@app.command("search", context_settings={"allow_interspersed_args": True})
def search(
    space: Annotated[str, typer.Option(help="What may change: a file as in search_spaces/.")],
    overrides: Overrides = None,
    num_trials: Annotated[int, typer.Option(min=1, help="Trials in the study.")] = 20,
    sampler: Annotated[str, typer.Option(help="tpe, nsga2 or random.")] = "tpe",
    pruner: Annotated[str, typer.Option(help="median, halving or none.")] = "median",
    search_seed: Annotated[int, typer.Option(help="Seed of the sampler.")] = 0,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Trials at a time; default what fits.")
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Name; default: of the space, settings and clips.")
    ] = None,
    study_storage: Annotated[
        str | None, typer.Option(help="A file, or the URL of a database.")
    ] = None,
    corpus: Corpus = None,
    task: Task = None,
    store: Store = "store",
    tracking_uri: TrackingUri = None,
    experiment: Experiment = "unfused",
    preset: Preset = "recommended",
    seeds: Seeds = 1,
    folds: Folds = False,
    num_workers: NumWorkers = 1,
    gpus_per_worker: GpusPerWorker = None,
    summary: Summary = None,
    dry_run: DryRun = False,
) -> None:
    """Look for better settings with Ray Tune and Optuna; a trial is a pipeline run."""
    quiet_libraries()
    from unfused.search.space import load

    options = configuration.run_options(
        store=store,
        tracking_uri=tracking_uri,
        experiment=experiment,
        num_workers=num_workers,
        gpus_per_worker=gpus_per_worker,
        concurrency=concurrency or 1,
    )
    config = _configuration(preset, overrides)
    request = Request(config, options, corpus, task, seeds, folds)
    check_summary(summary)
    asked = (num_trials, sampler, pruner, search_seed, study, study_storage)
    found = run_search(request, load(space, config), asked, concurrency, dry_run)
    if found is not None:
        write_summary(summary, found)


def _configuration(preset: str, overrides: list[str] | None) -> Config:
    changes = configuration.parse_overrides(overrides or [])
    return configuration.override(configuration.preset(preset), changes)


def check_summary(summary: Path | None) -> None:
    """Refuse a file that could not be written at the end."""
    if summary is not None and not summary.parent.resolve().is_dir():
        raise ConfigError(f"--summary {summary}: there is no folder {summary.parent}; make it.")


def write_summary(summary: Path | None, result: dict[str, Any]) -> None:
    if summary is not None:
        summary.write_text(json.dumps(result, indent=2) + "\n")


@app.command("config")
def show_config(
    preset: Annotated[str, typer.Option(help="recommended, faithful or demo.")] = "recommended",
) -> None:
    """List every setting with its value."""
    for name, value in configuration.flatten(configuration.preset(preset)).items():
        print(f"{name}={configuration.shown(value)}")


def show_plan(request: Request) -> None:
    """Print node, key, hit or miss, and what it asks of the cluster; builds nothing."""
    from unfused import runtime

    hardware = runtime.probe(request.options)
    plan = Plan(_resolved(request, hardware))
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


def _resolved(request: Request, hardware: Any) -> Request:
    from unfused import runtime

    return replace(request, config=runtime.resolve(request.config, hardware))


def run_pipeline(request: Request) -> dict[str, Any]:
    """Plan, build what is missing, track it, and show the arms; returns the summary."""
    from unfused import runtime, tracking

    console = display.make_console()
    hardware = runtime.probe(request.options)
    request = _resolved(request, hardware)
    plan = Plan(request)
    stream = Stream()
    run = Run(plan, hardware, stream)
    run.check_fit()
    uri = tracking.initialise(request.options.tracking_uri)
    tracker = tracking.Tracker(uri, request.options.experiment, request.options.store)
    stream.subscribe(tracker)
    shown = display.for_terminal(console)
    stream.subscribe(shown)
    status, result, reason = "FAILED", None, ""
    try:
        run.execute()
        result = report.summarize(plan)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except Exception as error:
        reason = str(error)
        raise
    finally:
        shown.close()
        stream.emit(RunFinished(status, result, reason))
        if result is not None:
            result["mlflow"] = tracker.describe()
            _register(plan, tracker)
        tracker.close()
    _show_result(console, plan, result, uri)
    return result


def run_search(
    request: Request, space: Any, asked: tuple[Any, ...], concurrency: int | None, dry_run: bool
) -> dict[str, Any] | None:
    """Run or go on with a search, and show its best trials; returns its summary."""
    from unfused import runtime, tracking
    from unfused.search import Runner, Search
    from unfused.search import concurrency as what_fits

    console = display.make_console()
    hardware = runtime.probe(request.options)
    search = Search(_resolved(request, hardware), space, *asked)
    if concurrency is None:
        options = request.options.model_copy(update={"concurrency": what_fits(search, hardware)})
        search = replace(search, request=replace(search.request, options=options))
    hardware = runtime.probe(search.request.options)
    stream, options = Stream(), search.request.options
    trackers: dict[int, Any] = {}

    def tracker_of(number: int) -> Any:
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
    status, reason, result = "FAILED", "", None
    try:
        result = runner.execute()
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except Exception as error:
        reason = str(error)
        raise
    finally:
        shown.close()
        if result is not None:
            files = {name: search.folder.read(name) for name in result["files"]}
            tracker.end_search(result["best"]["number"], search.folder.uri, files)
            result["mlflow"] = tracker.describe()
        for one in trackers.values():
            one.close()
        stream.emit(RunFinished(status, None, reason))
        tracker.close()
    _show_search_result(console, search, result, uri, runtime.resolve(Config(), hardware))
    return result


def _tag_trial(trackers: dict[int, Any], event: Any) -> None:
    if isinstance(event, TrialEnded) and event.number in trackers:
        trackers[event.number].tag({"trial": event.number, "state": event.state})


def show_search(console: Console, runner: Any) -> None:
    """Print what every trial shares and what may change; builds nothing."""
    rows = [(s.node.name, s.key or "", s.status, "") for s in runner.plan.steps.values()]
    console.print(display.plan_table(rows))
    console.print("Built once for all trials. What may change:")
    for key, distribution in runner.search.space.distributions.items():
        console.print(f"  {key}  {distribution}", highlight=False)


def _show_search_result(
    console: Console, search: Any, result: dict[str, Any], uri: str, defaults: Config
) -> None:
    from unfused import tracking

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


def best_command(search: Any, line: str, defaults: Config) -> str:
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


def _register(plan: Plan, tracker: Any) -> None:
    """Register the classifier of the method itself, or of the last arm asked for."""
    arms = plan.request.config.arms
    arm = "unfused" if "unfused" in arms else arms[-1]
    node = f"{plan.repetitions[0]}finetune/{arm}"
    artifact = plan.artifact(node)
    tracker.register(artifact.folder, artifact.facts, plan.request.options.experiment)


def _show_result(console: Console, plan: Plan, result: dict[str, Any], uri: str) -> None:
    from unfused import tracking

    console.print()
    console.print(display.arms_table(result))
    console.print()
    console.print(f"artifacts  {plan.store.root.uri}", highlight=False)
    console.print(f"compare    {tracking.ui_command(uri)}", highlight=False)


def quiet_libraries() -> None:
    """Keep the libraries' noise out of the run's output; errors still show."""
    warnings.filterwarnings("ignore")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    for name in ("mlflow", "alembic", "ray", "urllib3", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    given = sys.argv[1:] if arguments is None else arguments
    console = display.make_console(error=True)
    try:
        app(given, standalone_mode=False)
    except ConfigError as error:
        console.print(f"[red]error:[/] {escape(str(error))}", highlight=False)
        sys.exit(WRONG)
    except (typer.Exit, SystemExit) as stop:
        sys.exit(getattr(stop, "exit_code", getattr(stop, "code", 0)))
    except (KeyboardInterrupt, typer.Abort):
        again = escape(f"unfused {shlex.join(given)}")
        console.print(f"Stopped. The same command goes on from the last checkpoint: {again}")
        sys.exit(INTERRUPTED)
    except Exception as error:
        _fail(console, error)


def _fail(console: Console, error: Exception) -> None:
    if hasattr(error, "format_message"):
        # Typer's own errors: an unknown option, a value of the wrong type.
        console.print(f"[red]error:[/] {escape(error.format_message())}", highlight=False)
        sys.exit(WRONG)
    console.print(f"[red]failed:[/] {escape(str(error))}", highlight=False)
    console.print("The same command goes on from what is built; UNFUSED_DEBUG=1 shows more.")
    if os.environ.get("UNFUSED_DEBUG"):
        console.print_exception()
    sys.exit(FAILED)
