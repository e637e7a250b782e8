"""The `unfused` command; `pipelines/*.py` are thin doors to the same functions.

The rule of this room: a wrong request is one sentence and exit status 2, with nothing written; a
run that fails says so and exits 1, and the same command resumes it.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from unfused import __version__, cores, display, remote, secrets, signals, terminal
from unfused import config as configuration
from unfused.config import Config, ConfigError
from unfused.runtime import hold, leave

if TYPE_CHECKING:
    from unfused.pipeline import Request

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
RESUMED = ("run", "search")
"""Commands that go on from what they have built."""

app = typer.Typer(no_args_is_help=True)


def setting_names(incomplete: str) -> list[str]:
    """The settings that begin like this: what a shell completes."""
    names = configuration.flatten(Config())
    return [name for name in names if name.startswith(incomplete)]


def preset_names(incomplete: str) -> list[str]:
    """The presets that begin like this."""
    return [name for name in configuration.PRESETS if name.startswith(incomplete)]


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[section.key=value]...", show_default=False, autocompletion=setting_names
    ),
]
Corpus = Annotated[str | None, typer.Option(help="Unlabelled clips (as --task).")]
Task = Annotated[str | None, typer.Option(help="Labelled clips: manifest or folder.")]
PathColumn = Annotated[
    str | None, typer.Option(help="The manifest's column of files.", show_default=False)
]
LabelColumn = Annotated[
    str | None, typer.Option(help="The manifest's column of classes.", show_default=False)
]
AudioRoot = Annotated[
    str | None,
    typer.Option(help="Where a manifest's relative paths start.", show_default=False),
]
Teacher = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SPEC",
        show_default=False,
        help="An encoder to learn from, again for several: own (pre-trained here; the default),"
        " onnx:FILE, torch:FILE, hf:NAME, run:KEY, models:/NAME/VERSION.",
    ),
]
Store = Annotated[
    str, typer.Option(envvar="UNFUSED_STORE", help="Folder or URI of the artifacts.")
]
TrackingUri = Annotated[
    str | None,
    typer.Option(help="MLflow; default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db."),
]
Experiment = Annotated[str, typer.Option(help="MLflow experiment.")]
Preset = Annotated[
    str,
    typer.Option(help="recommended, faithful, demo or large.", autocompletion=preset_names),
]
Seeds = Annotated[int, typer.Option(min=1, help="Repetitions of the learned stages.")]
Folds = Annotated[bool, typer.Option("--folds", help="Cross-validate over `fold`.")]
NumWorkers = Annotated[
    int, typer.Option(min=1, help="Ray Train workers that one job is spread over.")
]
Jobs = Annotated[
    int | None, typer.Option(min=1, help="Jobs side by side; default what fits.")
]
GpusPerWorker = Annotated[
    float | None, typer.Option(min=0, help="Default: one, or a share where several jobs fit.")
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="End where the store is damaged, and do not build it again."),
]
Summary = Annotated[Path | None, typer.Option(help="Write the numbers here (JSON).")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be built.")]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print the outcome as JSON, and all else on standard error."),
]


@app.command(context_settings={"allow_interspersed_args": True})
def run(
    overrides: Overrides = None,
    corpus: Corpus = None,
    task: Task = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    audio_root: AudioRoot = None,
    teacher: Teacher = None,
    store: Store = "store",
    tracking_uri: TrackingUri = None,
    experiment: Experiment = "unfused",
    preset: Preset = "recommended",
    seeds: Seeds = 1,
    folds: Folds = False,
    num_workers: NumWorkers = 1,
    jobs: Jobs = None,
    gpus_per_worker: GpusPerWorker = None,
    strict: Strict = False,
    summary: Summary = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole pipeline: pretrain, embed, cluster, distill, finetune, evaluate."""
    quiet_libraries()
    with terminal.busy(display.make_console(error=True), "loading libraries"):
        from unfused.commands.run import run_pipeline, show_plan

    request = _understood(
        preset, overrides, corpus, task, (path_column, label_column, audio_root),
        seeds, folds, teacher,
        store=store, tracking_uri=tracking_uri, experiment=experiment,
        num_workers=num_workers, jobs=jobs, gpus_per_worker=gpus_per_worker,
        strict=strict,
    )  # fmt: skip
    check_summary(summary)
    with only_json(as_json) as answer:
        if dry_run:
            answer(show_plan(request))
        else:
            kept = Numbers(summary)
            answer(run_pipeline(request, kept))
            kept.check()


@app.command("search", context_settings={"allow_interspersed_args": True})
def search(
    space: Annotated[str, typer.Option(help="What may change: a file as in search_spaces/.")],
    overrides: Overrides = None,
    num_trials: Annotated[
        int, typer.Option(min=1, max=configuration.MAX_TRIALS, help="Trials in the study.")
    ] = 20,
    sampler: Annotated[str, typer.Option(help="tpe, nsga2 or random.")] = "tpe",
    pruner: Annotated[str, typer.Option(help="median, halving or none.")] = "median",
    search_seed: Annotated[
        int, typer.Option(min=0, max=configuration.MAX_SEED, help="Seed of the sampler.")
    ] = 0,
    concurrency: Annotated[
        int | None,
        typer.Option(
            min=1, max=configuration.MAX_AT_ONCE, help="Trials at a time; default what fits."
        ),
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Name; by default from space, settings and the task's path.")
    ] = None,
    study_storage: Annotated[
        str | None, typer.Option(help="A file, or the URL of a database.")
    ] = None,
    corpus: Corpus = None,
    task: Task = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    audio_root: AudioRoot = None,
    teacher: Teacher = None,
    store: Store = "store",
    tracking_uri: TrackingUri = None,
    experiment: Experiment = "unfused",
    preset: Preset = "recommended",
    seeds: Seeds = 1,
    folds: Folds = False,
    num_workers: NumWorkers = 1,
    jobs: Jobs = None,
    gpus_per_worker: GpusPerWorker = None,
    strict: Strict = False,
    summary: Summary = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Look for better settings with Ray Tune and Optuna; a trial is a pipeline run."""
    quiet_libraries()
    with terminal.busy(display.make_console(error=True), "loading libraries"):
        from unfused.commands.search import run_search, show_search
        from unfused.tuning import SearchRequest
        from unfused.tuning.space import load

    request = _understood(
        preset, overrides, corpus, task, (path_column, label_column, audio_root),
        seeds, folds, teacher,
        store=store, tracking_uri=tracking_uri, experiment=experiment,
        num_workers=num_workers, jobs=jobs, gpus_per_worker=gpus_per_worker,
        strict=strict,
    )  # fmt: skip
    check_summary(summary)
    asked = (num_trials, sampler, pruner, search_seed, study, study_storage)
    trials = load(space, request.config, sorted(request.chosen))
    what = SearchRequest(request, trials, *asked)
    with only_json(as_json) as answer:
        if dry_run:
            answer(show_search(what, concurrency))
        else:
            kept = Numbers(summary)
            answer(run_search(what, concurrency, kept))
            kept.check()


def _understood(
    preset: str,
    overrides: list[str] | None,
    corpus: str | None,
    task: str | None,
    columns: tuple[str | None, str | None, str | None],
    seeds: int,
    folds: bool,
    specs: list[str] | None,
    **options: Any,
) -> Request:
    """What `run` and `search` are both asked for."""
    from unfused.commands.asked import understood
    from unfused.corpora import Columns

    found = configuration.run_options(**options)
    return understood(
        preset, _changes(overrides), found, corpus, task, seeds, folds, specs or [],
        Columns(*columns),
    )  # fmt: skip


def _changes(overrides: list[str] | None) -> dict[str, Any]:
    """Settings by dotted name; of one that is given twice the last holds, which is said."""
    for told in configuration.repeated(overrides or []):
        display.make_console(error=True).print(f"note: {told}", markup=False, highlight=False)
    return configuration.parse_overrides(overrides or [])


@contextmanager
def only_json(wanted: bool) -> Iterator[Callable[[Any], None]]:
    """What is printed meanwhile goes to standard error, if that is wanted; gives what prints JSON.

    Args:
        wanted: whether it is; else all is printed as ever, and no JSON.
    """
    out = sys.stdout

    def answer(value: Any) -> None:
        if wanted:
            print(json.dumps(secrets.hidden_in(value), indent=2), file=out)

    with redirect_stdout(sys.stderr) if wanted else nullcontext():
        yield answer


def check_summary(summary: Path | None) -> None:
    """Refuse a file that could not be written at the end."""
    if summary is not None:
        from unfused.commands.places import writable

        writable("--summary", str(summary))


class Numbers:
    """The file that the numbers go to, if any: whole or not at all, and before anything is shown,
    which may fail as well."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._trouble = path, ""

    def __call__(self, result: dict[str, Any]) -> None:
        if self._path is None:
            return
        text = json.dumps(secrets.hidden_in(result), indent=2) + "\n"
        try:
            self._write(text.encode(), self._path)
        except OSError as error:
            self._trouble = error.strerror or str(error)

    @staticmethod
    def _write(data: bytes, path: Path) -> None:
        from unfused.inference.tables import opened

        if path.exists() and not path.is_file():
            # A terminal, a pipe.
            path.write_bytes(data)
            return
        with opened(str(path.resolve())) as file:
            file.write(data)

    def check(self) -> None:
        """Hold that it was written.

        Raises:
            Unwritten: it was not.
        """
        if self._trouble:
            raise Unwritten(
                f"Everything is built, but --summary {self._path} cannot be written"
                f" ({self._trouble}); name a place that can be, and run again: that takes seconds."
            )


class Unwritten(RuntimeError):
    """What was asked for is done, and cannot be written."""


Named = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="A model's folder, its key in the store, models:/NAME/VERSION, best or"
        " EXPERIMENT:best.",
    ),
]
Clips = Annotated[
    list[str],
    typer.Argument(
        metavar="CLIPS...", show_default=False, help="Files, folders, manifests, s3:// and gs://."
    ),
]


@app.command("predict")
def predict(
    model: Named,
    clips: Clips,
    out: Annotated[
        str | None,
        typer.Option(
            show_default=False,
            help="A file: .csv, .parquet, .jsonl, .selections.txt (Raven), .labels.txt (Audacity);"
            " - is CSV on the terminal.",
        ),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="One label for a long recording too.")
    ] = False,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="A timeline of a short clip too.")
    ] = False,
    window: Annotated[
        float | None, typer.Option(help="Seconds; default the training clips' middle length.")
    ] = None,
    overlap: Annotated[float, typer.Option(help="Of windows, as a share of one.")] = 0.5,
    threshold: Annotated[
        float, typer.Option(help="Probability below which a timeline says nothing.")
    ] = 0.5,
    min_seconds: Annotated[float, typer.Option(help="Shorter segments are left out.")] = 0.0,
    store: Store = "store",
    tracking_uri: TrackingUri = None,
) -> None:
    """Label recordings with a model: a table with a row for each, or for each segment of a long
    one."""
    quiet_libraries()
    from unfused.commands.named import named
    from unfused.commands.predict import Asked, predict
    from unfused.inference.files import Looking
    from unfused.inference.timeline import TimelineConfig

    if whole and timeline:
        raise ConfigError("--whole and --timeline exclude each other; give one of them.")
    looking = Looking(whole, timeline, TimelineConfig(window, overlap, threshold, min_seconds))
    predict(Asked(named(model, store, tracking_uri), clips, out), looking)


@app.command("embed")
def embed(
    model: Named,
    clips: Clips,
    out: Annotated[str, typer.Option(help="A file: .parquet or .jsonl.")] = "embeddings.parquet",
    store: Store = "store",
    tracking_uri: TrackingUri = None,
) -> None:
    """Write the vectors that a model judges recordings by."""
    quiet_libraries()
    from unfused.commands.named import named
    from unfused.commands.predict import Asked, embed

    embed(Asked(named(model, store, tracking_uri), clips, out))


@app.command("pseudo-label")
def pseudo_label(
    clusters: Annotated[
        str,
        typer.Argument(
            metavar="CLUSTERS",
            show_default=False,
            help="The key of a clustering in the store, or a model of a run that made one.",
        ),
    ],
    clips: Clips,
    out: Annotated[
        str | None, typer.Option(show_default=False, help="A file: .csv, .parquet or .jsonl.")
    ] = None,
    store: Store = "store",
    tracking_uri: TrackingUri = None,
) -> None:
    """Say which cluster each recording belongs to, by the centroids that a run has fitted."""
    quiet_libraries()
    from unfused.commands.pseudo_label import pseudo_label

    pseudo_label(clusters, store, tracking_uri, clips, out)


@app.command("export")
def export(
    model: Named,
    out: Annotated[str, typer.Option(help="The file.")],
    format: Annotated[str, typer.Option(help="onnx or torch.")] = "onnx",
    int8: Annotated[
        bool, typer.Option("--int8", help="Also a variant with 8-bit weights, FILE.int8.onnx.")
    ] = False,
    store: Store = "store",
    tracking_uri: TrackingUri = None,
) -> None:
    """Write a model as one file: waveform in, probabilities and embedding out."""
    quiet_libraries()
    from unfused.commands.export import export
    from unfused.commands.named import named

    export(named(model, store, tracking_uri), format, out, int8)


@app.command("page")
def page(
    model: Named,
    out: Annotated[str, typer.Option(help="The file.")] = "page.html",
    int8: Annotated[bool, typer.Option("--int8", help="With 8-bit weights: smaller.")] = False,
    store: Store = "store",
    tracking_uri: TrackingUri = None,
) -> None:
    """Write a model as one HTML file that labels recordings in a browser."""
    quiet_libraries()
    from unfused.commands.export import write_page
    from unfused.commands.named import named

    write_page(named(model, store, tracking_uri), out, int8)


@app.command("serve")
def serve(
    model: Named,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    max_mib: Annotated[
        float, typer.Option(min=0.1, max=65536, help="Of a recording that is sent.")
    ] = 64.0,
    max_seconds: Annotated[
        float, typer.Option(min=1, max=86400, help="Likewise, of sound.")
    ] = 600.0,
    patience: Annotated[
        float, typer.Option(min=0.1, max=86400, help="Seconds for it to arrive.")
    ] = 60.0,
    max_requests: Annotated[
        int, typer.Option(min=1, max=65536, help="That wait at a time.")
    ] = 64,
    store: Store = "store",
    tracking_uri: TrackingUri = None,
) -> None:
    """Answer HTTP: send a file of audio, get its label as JSON."""
    quiet_libraries()
    from unfused.commands.named import named
    from unfused.commands.receiving import Limits
    from unfused.commands.serve import serve

    limits = Limits(max_mib, max_seconds, patience, max_requests)
    serve(named(model, store, tracking_uri), host, port, limits)


@app.command("inspect", context_settings={"allow_interspersed_args": True})
def inspect(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", show_default=False, help="Clips, as --task of run takes them."
        ),
    ],
    overrides: Overrides = None,
    corpus: Corpus = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    audio_root: AudioRoot = None,
    folds: Folds = False,
    files: Annotated[
        int, typer.Option(min=0, help="Files that are opened, evenly chosen; 0 is all.")
    ] = 10_000,
    preset: Preset = "recommended",
    as_json: AsJson = False,
) -> None:
    """Look at a collection before a run: classes, splits, durations, rates, what is broken."""
    quiet_libraries()
    with terminal.busy(display.make_console(error=True), "loading libraries"):
        from unfused.commands.inspect import inspect
        from unfused.corpora import Columns
        from unfused.pipeline import Request

    options = configuration.run_options()
    columns = Columns(path_column, label_column, audio_root)
    config = configuration.override(configuration.preset(preset), _changes(overrides))
    request = Request(config, options, corpus, data, folds=folds, columns=columns)
    with only_json(as_json) as answer:
        named = [] if preset == "recommended" else ["--preset", preset]
        answer(inspect(request, files, [*named, *(overrides or [])]))


@app.command("sync")
def sync(store: Store = "store", tracking_uri: TrackingUri = None) -> None:
    """Send MLflow what runs on a store could not tell it, and close runs that died."""
    quiet_libraries()
    from unfused.commands.sync import sync

    sync(store, tracking_uri)


@app.command("config")
def show_config(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY | section.key=value]...", show_default=False, autocompletion=setting_names
        ),
    ] = None,
    preset: Preset = "recommended",
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """List every setting with its value and what it means; KEY, a setting or a section, explains
    what it may be and its default."""
    from unfused.commands.settings import as_json as written
    from unfused.commands.settings import explained, listed

    keys = [word for word in settings or [] if "=" not in word]
    changes = _changes([word for word in settings or [] if "=" in word])
    config = configuration.override(configuration.preset(preset), changes)
    if as_json:
        print(written(config, keys))
    else:
        print(explained(config, keys) if keys else listed(config))


@app.command("datasets")
def show_datasets(
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """List the published data sets that --task NAME:DIR reads as they were unpacked, with their
    own splits and folds."""
    from unfused.commands.datasets import as_json as written
    from unfused.commands.datasets import table

    if as_json:
        print(written())
    else:
        display.make_console().print(table())


@app.command("verify")
def verify(
    store: Store = "store",
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Set aside what is damaged: the next run builds it again."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Read every file of a store, and tell what is not as it was written; exit status 1 if
    something is."""
    from unfused.commands.verify import verify

    with only_json(as_json) as answer:
        found = verify(store, display.make_console(), repair=repair)
        answer(found)
    if found["damaged"]:
        raise typer.Exit(FAILED)


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=show_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Learn audio classifiers from few labels."""


def quiet_libraries() -> None:
    """Keep the libraries' noise out of the run's output; errors still show."""
    cores.settle_user()
    warnings.filterwarnings("ignore")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    for name in ("mlflow", "alembic", "ray", "urllib3", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    _close_to_native_libraries()


def _close_to_native_libraries() -> None:
    """Let what libraries in C write to the descriptor of stderr go nowhere, and what is Python's
    where it went: a decoder of MP3 has a line for every strange frame that it meets. A crash is
    still told, by Python's own handler of faults.

    UNFUSED_DEBUG=1 leaves it open, for what the interpreter itself writes there too
    (PYTHONPROFILEIMPORTTIME, PYTHONVERBOSE).
    """
    if sys.stderr is not sys.__stderr__ or os.environ.get("UNFUSED_DEBUG"):
        return
    stream = sys.stderr
    if stream is None or stream.fileno() != 2:
        return
    stream.flush()
    sys.stderr = sys.__stderr__ = open(  # noqa: SIM115
        os.dup(2), "w", encoding=stream.encoding, errors=stream.errors, buffering=1
    )
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    faulthandler.enable(sys.stderr)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    given = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    console = display.make_console(error=True)
    signals.listen()
    hold()
    try:
        configuration.environment.check()
        # Typer makes a status of Ctrl-C and returns it.
        status = app(given, prog_name="unfused", standalone_mode=False) or DONE
    except ConfigError as error:
        _refuse(console, str(error))
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except typer.Exit as stop:
        status = stop.exit_code
    except SystemExit as stop:
        # Typer's, where what reads the output has ended.
        status = stop.code if isinstance(stop.code, int) else FAILED
    except Exception as error:
        _fail(console, error, given[0])
    if status == INTERRUPTED:
        again = escape(secrets.command(f"unfused {shlex.join(given)}"))
        goes_on = f" The same command goes on from the last checkpoint: {again}"
        with suppress(OSError):
            console.print(f"Stopped.{goes_on if given[0] in RESUMED else ''}")
    leave(status)


def _refuse(console: Console, sentence: str) -> NoReturn:
    """Say what is wrong in one line, whatever characters what was typed has in it."""
    line = "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in sentence
    )
    end = "" if line.endswith((".", "?")) else "."
    with suppress(OSError):
        console.print(f"[red]error:[/] {escape(line)}{end}", highlight=False)
    leave(WRONG)


def _fail(console: Console, error: Exception, command: str) -> NoReturn:
    if hasattr(error, "format_message"):
        # Typer's own errors: an unknown option, a value of the wrong type.
        _refuse(console, error.format_message())
    again = "The same command goes on from what is built; " if command in RESUMED else ""
    with suppress(OSError):
        console.print(f"[red]failed:[/] {escape(_sentence(error))}", highlight=False)
        console.print(f"{again}UNFUSED_DEBUG=1 shows more.")
        if os.environ.get("UNFUSED_DEBUG"):
            told = "".join(traceback.format_exception(error))
            console.print(told, markup=False, highlight=False)
    leave(FAILED)


def _sentence(error: Exception) -> str:
    """What an error says; of a disk that is full or fails, which it is and what helps."""
    fault = remote.fault_of(error) if isinstance(error, OSError) else None
    if fault and fault not in (remote.CLOSED, remote.NO_FOLDER):
        place = remote.path_of(error) or "the standard output"
        return f"Cannot use {place}: {fault.reason}; {fault.remedy}."
    return str(error)
