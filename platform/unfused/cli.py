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
from unfused.config import ConfigError, RunOptions
from unfused.events import RunFinished, Stream
from unfused.pipeline import Plan, Request, Run

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Learn audio classifiers from few labels."
)


@app.command(context_settings={"allow_interspersed_args": True})
def run(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[section.key=value]...", show_default=False)
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="Unlabelled clips (as --task).")] = None,
    task: Annotated[str | None, typer.Option(help="Labelled clips: manifest or folder.")] = None,
    store: Annotated[str, typer.Option(help="Folder or URI of the artifacts.")] = "store",
    tracking_uri: Annotated[
        str | None,
        typer.Option(help="MLflow; default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db."),
    ] = None,
    experiment: Annotated[str, typer.Option(help="MLflow experiment.")] = "unfused",
    preset: Annotated[str, typer.Option(help="recommended, faithful or demo.")] = "recommended",
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions of the learned stages.")] = 1,
    folds: Annotated[bool, typer.Option("--folds", help="Cross-validate over `fold`.")] = False,
    num_workers: Annotated[int, typer.Option(min=1, help="Ray Train workers.")] = 1,
    gpus_per_worker: Annotated[
        int | None, typer.Option(min=0, help="Default: one where the cluster has any.")
    ] = None,
    summary: Annotated[Path | None, typer.Option(help="Write the numbers here (JSON).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be built.")] = False,
) -> None:
    """Run the whole pipeline: pretrain, embed, cluster, distill, finetune, evaluate."""
    quiet_libraries()
    changes = configuration.parse_overrides(overrides or [])
    config = configuration.override(configuration.preset(preset), changes)
    options = RunOptions(
        store=store,
        tracking_uri=tracking_uri,
        experiment=experiment,
        num_workers=num_workers,
        gpus_per_worker=gpus_per_worker,
    )
    if summary is not None and not summary.parent.resolve().is_dir():
        raise ConfigError(f"--summary {summary}: there is no folder {summary.parent}; make it.")
    request = Request(config, options, corpus, task, seeds, folds)
    if dry_run:
        show_plan(request)
        return
    result = run_pipeline(request)
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
    """Print node, key, and hit or miss; builds nothing."""
    from unfused import runtime

    hardware = runtime.probe(request.options)
    plan = Plan(_resolved(request, hardware))
    rows = [(s.node.name, s.key or "", s.status) for s in plan.steps.values()]
    console = display.make_console()
    console.print(display.plan_table(rows))
    missing = sum(status != "hit" for _, _, status in rows)
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
