"""The program as functions: `unfused.run` and `unfused.search`, for notebooks and scripts.

The rule of this file: they do what the commands do, print what those print, and give tables back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from unfused import config as configuration
from unfused.config import ConfigError
from unfused.corpora import Columns
from unfused.inference import Model, load
from unfused.store import Folder, Store, read_table

if TYPE_CHECKING:
    import pandas as pd

    from unfused.pipeline import Request
    from unfused.tuning import SearchRequest
    from unfused.tuning.space import Space

Place = str | Path
Settings = Mapping[str, Any]
Given = TypeVar("Given", bound=BaseModel)


@dataclass(frozen=True, repr=False)
class RunResult:
    """What came of a run.

    Attributes:
        summary: as `--summary` writes it.
        record: the folder of what the run left in the store.
    """

    summary: dict[str, Any]
    record: Folder

    def __repr__(self) -> str:
        chosen = self.summary["chosen"]
        score, arms = chosen["accuracy"]["mean"], ", ".join(dict.fromkeys(chosen["by_draw"]))
        return f"<RunResult {self.summary['run']['id']}: {arms}, accuracy {score:.3f}>"

    @property
    def arms(self) -> pd.DataFrame:
        """A row for each arm: accuracy and its deviation over draws, balanced accuracy, macro-F1,
        cross-validated accuracy, and by how much the chosen arm is ahead."""
        import pandas as pd

        ahead = self.summary["chosen"]["ahead_of"]
        rows = {
            name: {
                "accuracy": arm["accuracy"]["mean"],
                "sd": _sd(arm["accuracy"]),
                "balanced_accuracy": arm["balanced_accuracy"]["mean"],
                "macro_f1": arm["macro_f1"]["mean"],
                "cross_validated": (arm["cross_validated"] or {}).get("mean"),
                "chosen_ahead_by": ahead[name]["mean"],
            }
            for name, arm in self.summary["arms"].items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")

    @property
    def trust(self) -> pd.DataFrame:
        """A row for each teacher: cross-validated accuracy and weight of its probe."""
        import pandas as pd

        rows = [
            {"teacher": name, "accuracy": one["accuracy"], "weight": one["weight"]}
            for name, one in self.summary["trust"].items()
        ]
        return pd.DataFrame(rows, columns=["teacher", "accuracy", "weight"]).set_index("teacher")

    @property
    def stages(self) -> pd.DataFrame:
        """A row for each stage: key, hit or built, seconds."""
        import pandas as pd

        return pd.DataFrame(self.summary["stages"]).set_index("name")

    @cached_property
    def clips(self) -> pd.DataFrame:
        """A row for each clip: file, digest, split, label, cluster, and by arm what every draw
        predicts."""
        from unfused.pipeline.record import RUN_CLIPS

        return read_table(self.record, RUN_CLIPS).to_pandas()

    @cached_property
    def model(self) -> Model:
        """The model of the chosen arm."""
        return load(next(iter(self.summary["models"].values())))


@dataclass(frozen=True, repr=False)
class SearchResult:
    """What came of a search.

    Attributes:
        summary: as `--summary` writes it.
    """

    summary: dict[str, Any]

    def __repr__(self) -> str:
        best, count = self.summary["best"], len(self.summary["trials"])
        return f"<SearchResult of {count} trials: the best is {best['number']}, {self.best}>"

    @property
    def trials(self) -> pd.DataFrame:
        """A row for each trial: state, objectives, what was changed."""
        import pandas as pd

        names = self.summary["objectives"]
        rows = [
            {
                "trial": one["number"],
                "state": one["state"],
                **dict(zip(names, one.get("values") or [None] * len(names), strict=True)),
                **one["changes"],
            }
            for one in self.summary["trials"]
        ]
        return pd.DataFrame(rows).set_index("trial")

    @property
    def best(self) -> dict[str, Any]:
        """What the best trial changed."""
        return dict(self.summary["best"]["changes"])


def _sd(spread: Mapping[str, Any]) -> float | None:
    """None of a single draw."""
    return spread["sd"] if len(spread["values"]) > 1 else None


def run(
    task: Place | None = None,
    corpus: Place | None = None,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    audio_root: Place | None = None,
    settings: Settings | None = None,
    teachers: Place | Sequence[Place] = (),
    preset: str = "recommended",
    seeds: int = 1,
    folds: bool = False,
    **options: Any,
) -> RunResult:
    """Run the whole pipeline; see `unfused run --help`.

    Args:
        task: labelled clips, a manifest or a folder; none is the demo's.
        corpus: unlabelled ones.
        path_column: the manifest's column of files, where it has no usual name.
        label_column: likewise, of classes.
        audio_root: where a manifest's relative paths start.
        settings: by dotted name, as in {"cluster.num_clusters": 64}.
        teachers: as `--teacher` has them, one or several.
        preset: recommended, faithful, demo or large.
        seeds: repetitions of the learned stages.
        folds: whether to cross-validate over `fold`.
        options: store, tracking_uri, experiment, num_workers, gpus_per_worker, jobs.

    Raises:
        ConfigError: what was asked for cannot be done.
    """
    from unfused.commands.run import run_pipeline

    request = _checked(
        _Asked, task=task, corpus=corpus, path_column=path_column, label_column=label_column,
        audio_root=audio_root, settings=settings, teachers=teachers, preset=preset, seeds=seeds,
        folds=folds,
    ).request(options)  # fmt: skip
    summary = run_pipeline(request)
    root = Store.at(request.options.store).root
    return RunResult(summary, root / "runs" / summary["run"]["id"])


def search(
    space: Place,
    task: Place | None = None,
    corpus: Place | None = None,
    *,
    num_trials: int = 20,
    sampler: str = "tpe",
    pruner: str = "median",
    search_seed: int = 0,
    concurrency: int | None = None,
    study: str | None = None,
    study_storage: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    audio_root: Place | None = None,
    settings: Settings | None = None,
    teachers: Place | Sequence[Place] = (),
    preset: str = "recommended",
    seeds: int = 1,
    folds: bool = False,
    **options: Any,
) -> SearchResult:
    """Look for better settings; see `unfused search --help`.

    Args:
        space: what may change, a file as in search_spaces/.
        task, corpus, path_column, label_column, audio_root, settings, teachers, preset, seeds,
            folds, options: as `run` has them.
        num_trials: trials in the study.
        sampler: tpe, nsga2 or random.
        pruner: median, halving or none.
        search_seed: of the sampler.
        concurrency: trials at a time; by default what fits.
        study: its name; by default from space, settings and the task's path.
        study_storage: a file, or the URL of a database.

    Raises:
        ConfigError: what was asked for cannot be done.
    """
    from unfused.commands.search import run_search
    from unfused.tuning.space import load as load_space

    request = _checked(
        _Asked, task=task, corpus=corpus, path_column=path_column, label_column=label_column,
        audio_root=audio_root, settings=settings, teachers=teachers, preset=preset, seeds=seeds,
        folds=folds,
    ).request(options)  # fmt: skip
    search = _checked(
        _Search, space=space, num_trials=num_trials, sampler=sampler, pruner=pruner,
        search_seed=search_seed, concurrency=concurrency, study=study, study_storage=study_storage,
    )  # fmt: skip
    trials = load_space(str(search.space), request.config, sorted(request.chosen))
    return SearchResult(run_search(search.of(request, trials), search.concurrency))


def _told(what: str) -> Any:
    """A field, and what is asked for where something else is given."""
    return Field(description=what)


def _number(least: int, most: int) -> Any:
    """Likewise, of a whole number."""
    return Field(description=f"a whole number from {least} to {most}", ge=least, le=most)


def _no_zero(place: Place | None) -> Place | None:
    if "\0" in str(place):
        raise ValueError("no path has a zero in it")
    return place


SomePlace = Annotated[Place | None, AfterValidator(_no_zero)]
A_PLACE = "a path or an address, as text or pathlib.Path"
A_COLUMN = "a column's name"


class _Asked(BaseModel):
    """What `run` and `search` take alike."""

    task: SomePlace = _told(A_PLACE)
    corpus: SomePlace = _told(A_PLACE)
    path_column: str | None = _told(A_COLUMN)
    label_column: str | None = _told(A_COLUMN)
    audio_root: SomePlace = _told(A_PLACE)
    settings: Settings | None = _told('names and values, as in {"rounds": 2}')
    teachers: Place | Sequence[Place] | None = _told('one or several as text, as in "hf:NAME"')
    preset: str = _told("a name")
    seeds: int = _told("a whole number")
    folds: bool = _told("True or False")

    def request(self, options: Mapping[str, Any]) -> Request:
        from unfused.commands.asked import understood

        named = {name: str(one) if isinstance(one, Path) else one for name, one in options.items()}
        where = configuration.run_options(**named)
        columns = Columns(self.path_column, self.label_column, _text(self.audio_root))
        places = map(_text, (self.corpus, self.task))
        specs = [self.teachers] if isinstance(self.teachers, Place) else self.teachers or []
        asked = (self.seeds, self.folds, [*map(str, specs)], columns)
        return understood(self.preset, self.settings or {}, where, *places, *asked)


class _Search(BaseModel):
    """What `search` takes beside that, within the bounds that its command has."""

    space: Annotated[Place, AfterValidator(_no_zero)] = _told("a file as in search_spaces/")
    num_trials: int = _number(1, configuration.MAX_TRIALS)
    sampler: str = _told("a name")
    pruner: str = _told("a name")
    search_seed: int = _number(0, configuration.MAX_SEED)
    concurrency: int | None = _number(1, configuration.MAX_AT_ONCE)
    study: str | None = _told("a name")
    study_storage: SomePlace = _told("a file, or the address of a database")

    def of(self, request: Request, space: Space) -> SearchRequest:
        from unfused.tuning import SearchRequest

        names = self.num_trials, self.sampler, self.pruner, self.search_seed
        return SearchRequest(request, space, *names, self.study, _text(self.study_storage))


def _checked(kind: type[Given], **given: Any) -> Given:
    """What was given, each of a type that it may have.

    Raises:
        ConfigError: one is not.
    """
    try:
        return kind(**given)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        shown = " ".join(repr(given[name]).split())
        wanted = kind.model_fields[name].description
        raise ConfigError(f"{name} is {shown:.80}; give {wanted}.") from None


def _text(place: Place | None) -> str | None:
    return None if place is None else str(place)
