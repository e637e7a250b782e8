"""The pictures of MLflow in the documentation, taken of runs that are there.

    python tests/tracking/screenshots.py sqlite:////abs/mlflow.db --experiment unfused

It needs Chromium: one finished run is pictured with the list of all, two or more compared, and a
registered model where there is one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "platform")]

from browser import Browser  # noqa: E402
from tracked_runs import look, served  # noqa: E402
from unfused import tracking  # noqa: E402

PICTURES = ROOT / "docs" / "images"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("database")
    asked.add_argument("--experiment", default="unfused")
    asked.add_argument("--out", type=Path, default=PICTURES)
    given = asked.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    client = look(given.database)
    experiment = client.get_experiment_by_name(given.experiment).experiment_id
    finished = "tags.kind = 'pipeline' and attributes.status = 'FINISHED'"
    runs = client.search_runs([experiment], finished)
    models = [v.tags["model_id"] for v in client.search_model_versions() if "model_id" in v.tags]
    with (
        tempfile.TemporaryDirectory() as scratch,
        served(given.database, Path(scratch)) as (server, _),
        Browser() as browser,
    ):
        address = tracking.ui_address(server, experiment)
        _pictures(browser, address, [run.info.run_name for run in runs], given.out)
        if models:
            browser.open(f"{server}/#/experiments/{experiment}/models/{models[0]}")
            browser.wait("is chosen", "test_accuracy")
            browser.picture(given.out / "mlflow-model.png")


def _pictures(browser: Browser, address: str, names: list[str], out: Path) -> None:
    browser.open(address)
    browser.wait("test_accuracy", *names)
    browser.without_assistant()
    browser.picture(out / "mlflow-runs.png")
    browser.click(names[0], exact=True)
    browser.wait("is chosen", "cross-validated")
    # Below are tags with places of the machine.
    browser.picture(out / "mlflow-run.png", height=700)
    if len(names) > 1:
        browser.open(address)
        browser.wait(*names)
        browser.select_all()
        browser.click("Compare", exact=True)
        browser.wait("Parallel Coordinates Plot", "test_accuracy")
        browser.picture(out / "mlflow-compare.png")


if __name__ == "__main__":
    main()
