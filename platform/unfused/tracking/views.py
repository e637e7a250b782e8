"""What MLflow's list of runs opens on: columns and charts, kept as views of an experiment.

The rule of this file: a view is a tag of the experiment that MLflow's UI reads
(`mlflow.sharedViewState.<key>`, since 3.17 with a name, under "Views"); an address that names its
key opens on it, and whatever a person chose for themselves stays theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

TAG = "mlflow.sharedViewState."
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Without it MLflow's UI takes an experiment for one of chat models."""
RUNS, TRIALS = "unfused-runs", "unfused-trials"
K, TEMPERATURE = "cluster.num_clusters", "distill.temperature"
SECTION = "result"
WIDTH = 130
"""Pixels of a column: all are seen beside the names."""
MADE = 1_760_000_000_000
"""When the views were made (milliseconds since 1970), the same for all, so that they are written
once."""


def tags() -> dict[str, str]:
    """The tags of an experiment that give its list of runs these views."""
    runs = _view(
        "runs",
        "tags.kind != 'node' and tags.kind != 'trial'",
        ("test_accuracy", "valid_accuracy"),
        (),
        "attributes.start_time",
    )
    trials = _view(
        "trials",
        "tags.kind = 'trial'",
        ("valid_accuracy", "cross_validated"),
        ("trial", "state", "best"),
        "metrics.`valid_accuracy`",
    )
    return {**KIND, f"{TAG}{RUNS}": runs, f"{TAG}{TRIALS}": trials}


def show(client: Any, experiment: str) -> None:
    """Give an experiment the columns and charts that its list of runs opens on."""
    there = client.get_experiment(experiment).tags
    for key, value in tags().items():
        if there.get(key) != value:
            client.set_experiment_tag(experiment, key, value)


def address(server: str, experiment: str, view: str = RUNS) -> str:
    """The page of an experiment's runs, opened on a view."""
    where = f"{server}/#/experiments/{experiment}/runs"
    return f"{where}?workflowType=machine_learning&viewStateShareKey={view}"


def _view(
    name: str, only: str, metrics: Sequence[str], marks: Sequence[str], order: str
) -> str:
    """A view with k, the temperature and some metrics as columns and charts."""
    first, *others = (f"metrics.`{metric}`" for metric in metrics)
    settings = [f"params.`{name}`" for name in (K, TEMPERATURE)]
    columns = [*(f"tags.`{mark}`" for mark in marks), first, *settings, *others]
    state = {
        "searchFilter": only,
        "orderByKey": order,
        "orderByAsc": False,
        "selectedColumns": [*columns, "attributes.`Dataset`", "attributes.`Models`"],
        "columnOrder": columns,
        "columnWidths": dict.fromkeys(columns, WIDTH),
        "compareRunCharts": list(_charts(metrics)),
        "compareRunSections": [{"uuid": SECTION, "name": SECTION, "display": True}],
    }
    told = {"name": name, "createdAt": MADE, "updatedAt": MADE, "state": json.dumps(state)}
    return json.dumps(told)


def _charts(metrics: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """How the first metric goes with k and the temperature, and a bar a run for each metric."""
    common = {"metricSectionId": SECTION, "deleted": False, "isGenerated": False}
    yield {
        **common,
        "uuid": "parallel",
        "type": "PARALLEL",
        "runsCountToCompare": 10,
        "selectedParams": [K, TEMPERATURE],
        "selectedMetrics": [metrics[0]],
        "showAllRuns": True,
    }
    for metric in metrics:
        bar = {"type": "BAR", "metricKey": metric, "runsCountToCompare": 20}
        yield {**common, "uuid": metric, **bar}
