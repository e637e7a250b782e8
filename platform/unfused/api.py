"""The program as functions: `unfused.run` and `unfused.search`, for notebooks and scripts.

The rule of this file: they do what the commands do, print what those print, and give tables back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unfused import config as configuration
from unfused.corpora import Columns
from unfused.inference import Model, load
from unfused.store import Folder, Store, read_table

if TYPE_CHECKING:
    import pandas as pd

    from unfused.pipeline import Request

Settings = Mapping[str, Any]


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

        return pd.DataFrame.from_dict(self.summary["trust"], orient="index").rename_axis("teacher")

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
    task: str | Path | None = None,
    corpus: str | Path | None = None,
    *,
    path_column: str | None = None,
    label_column: str | None = None,
    audio_root: str | Path | None = None,
    settings: Settings | None = None,
    teachers: str | Path | Sequence[str | Path] = (),
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

    columns = Columns(path_column, label_column, audio_root and str(audio_root))
    request = _request(task, corpus, columns, settings, teachers, preset, seeds, folds, options)
    summary = run_pipeline(request)
    root = Store.at(request.options.store).root
    return RunResult(summary, root / "runs" / summary["run"]["id"])


def search(
    space: str | Path,
    task: str | Path | None = None,
    corpus: str | Path | None = None,
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
    audio_root: str | Path | None = None,
    settings: Settings | None = None,
    teachers: str | Path | Sequence[str | Path] = (),
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
    from unfused.tuning import SearchRequest
    from unfused.tuning.space import load as load_space

    columns = Columns(path_column, label_column, audio_root and str(audio_root))
    request = _request(task, corpus, columns, settings, teachers, preset, seeds, folds, options)
    asked = (num_trials, sampler, pruner, search_seed, study, study_storage)
    trials = load_space(str(space), request.config, sorted(request.chosen))
    what = SearchRequest(request, trials, *asked)
    return SearchResult(run_search(what, concurrency))


def _request(
    task: str | Path | None,
    corpus: str | Path | None,
    columns: Columns,
    settings: Settings | None,
    teachers: str | Path | Sequence[str | Path],
    preset: str,
    seeds: int,
    folds: bool,
    options: Mapping[str, Any],
) -> Request:
    from unfused.commands.asked import understood

    named = {name: str(one) if isinstance(one, Path) else one for name, one in options.items()}
    where = configuration.run_options(**named)
    places = (None if place is None else str(place) for place in (corpus, task))
    specs = [teachers] if isinstance(teachers, str | Path) else teachers
    asked = (seeds, folds, [*map(str, specs)], columns)
    return understood(preset, settings or {}, where, *places, *asked)
