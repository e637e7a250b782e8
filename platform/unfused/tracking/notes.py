"""Descriptions of runs and models, in the Markdown that MLflow's pages show.

The rule of this file: a description says what a person asks first, the result and what it is worth,
and leads on by links; it repeats what summary and manifests say and computes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a run's or a logged model's description."""
MANY = 12
"""Links and classes that one line has room for."""
ROLES = {
    "data": ("ingest",),
    "teacher": ("teacher", "pretrain"),
    "clusters": ("cluster",),
    "student": ("distill", "selftrain"),
}
"""What a person asks the maker of, and the stages that make it."""


@dataclass(frozen=True)
class Made:
    """A node's artifact, and the page of the run that built it."""

    node: str
    stage: str
    key: str
    page: str
    """Relative to MLflow's UI; empty where no run is known."""

    @property
    def link(self) -> str:
        name = f"`{self.node}`"
        return f"[{name}]({self.page})" if self.page else f"{name} (`{self.stage}/{self.key}`)"


def page(experiment: str, run: str) -> str:
    """The page of a run, relative to MLflow's UI."""
    return f"#/experiments/{experiment}/runs/{run}" if run else ""


def of_run(
    summary: Mapping[str, Any],
    made: Sequence[Made],
    places: Mapping[str, str],
    num_clips: int,
) -> str:
    """What a finished pipeline run came to.

    Args:
        summary: of the run; {} or parts of one where it has no more.
        made: every node.
        places: folders or manifests of task and corpus.
        num_clips: that were scored.
    """
    found = [_result(summary), _arms(summary), _facts(summary, num_clips), _origin(made, places)]
    return "\n\n".join(filter(None, found))


def _result(summary: Mapping[str, Any]) -> str:
    chosen = summary.get("chosen")
    if not chosen:
        return ""
    arms = list(dict.fromkeys(chosen["by_draw"]))
    chance = f"; chance {summary['chance']:.3f}" if "chance" in summary else ""
    split = summary.get("scored_on", "test")
    score = f"{split} accuracy {_spread(chosen['accuracy'])}"
    return f"**{', '.join(arms)}** is chosen: {score}{chance}."


def _arms(summary: Mapping[str, Any]) -> str:
    arms = summary.get("arms")
    if not arms:
        return ""
    chosen = set(summary.get("chosen", {}).get("by_draw", ()))
    split = summary.get("scored_on", "test")
    rows = [f"| arm | {split} accuracy | balanced | cross-validated |", "|---|---|---|---|"]
    for arm, found in arms.items():
        name = f"**{arm}**" if arm in chosen else arm
        scores = [found.get(of) for of in ("accuracy", "balanced_accuracy", "cross_validated")]
        rows.append(f"| {name} | {' | '.join(map(_spread, scores))} |")
    return "\n".join(rows)


def _spread(found: Mapping[str, Any] | None) -> str:
    """Mean and deviation; a dash where nothing was measured, no deviation of one draw."""
    if not found:
        return "–"
    one = len(found.get("values", (0, 0))) < 2
    return f"{found['mean']:.3f}" + ("" if one else f" ± {found.get('sd', 0.0):.3f}")


def _facts(summary: Mapping[str, Any], num_clips: int) -> str:
    lines = []
    classes = [found["classes"] for found in summary.get("arms", {}).values() if "classes" in found]
    if classes:
        lines.append(f"{len(classes[0])} classes: {some(classes[0])}")
    if labels := summary.get("labels_per_draw"):
        valid = f", {labels['valid']} of validation clips" if labels["valid"] else ""
        lines.append(f"labels: {labels['train']} a draw{valid}")
    if num_clips:
        lines.append(f"{summary.get('scored_on', 'test')} clips: {num_clips:,}")
    return _list(lines)


def _origin(made: Sequence[Made], places: Mapping[str, str]) -> str:
    lines = [f"{role}: `{place}`" for role, place in places.items()]
    for role, stages in ROLES.items():
        links = [one.link for one in made if one.stage in stages]
        lines += [f"{role}: {some(links)}"] if links else []
    return _list(lines)


def of_node(
    stage: str, store: str, pipeline: str, inputs: Mapping[str, Made | str], place: str
) -> str:
    """What a node was made from, and where it is.

    Args:
        stage: that makes it.
        store: its artifact's folder.
        pipeline: page of the run that it is a node of.
        inputs: name -> what was read.
        place: folder or manifest that an ingest node reads.
    """
    lines = [f"clips of `{place}`"] if place else []
    links = {k: one.link if isinstance(one, Made) else f"`{one}`" for k, one in inputs.items()}
    lines += [f"{name}: {link}" for name, link in links.items()]
    lines += [f"artifact: `{store}`", f"node of [this run]({pipeline})"]
    return f"`{stage}` made from\n\n{_list(lines)}" if inputs else _list(lines)


def of_model(run: str, arm: str, draws: int, standing: str) -> str:
    """What a version of a registered model is, above the description of its run.

    Args:
        run: page of the run.
        arm: whose classifier it is.
        draws: of the labels that the run made.
        standing: the rule that gave it its alias, applied.
    """
    first = f", of {draws} draws the first" if draws > 1 else ""
    return f"The classifier `{arm}`{first}, of [this run]({run}). {standing}"


def refused(reason: str) -> str:
    """Of a run whose request was refused once its clips were read."""
    return f"**Refused**: {reason}\n\nNothing was learned; no stage failed."


def some(items: Iterable[str]) -> str:
    """Items after one another, the first of many."""
    listed = list(items)
    more = [f"{len(listed) - MANY} more"] if len(listed) > MANY else []
    return ", ".join([*listed[:MANY], *more])


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
