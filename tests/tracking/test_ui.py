"""MLflow's own pages, as a person finds them at the address that a run prints."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from browser import CHROMIUM, Browser
from small_classifier import model_facts, random_classifier, write_model
from tracked_runs import a_whole_run, eyes_on, ingest_built, new_database, served
from unfused import tracking
from unfused.store import Folder
from unfused.tracking import Classifier

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]
SETTINGS = ("cluster.num_clusters", "distill.temperature")
RUNS = ((9, 2.5, 0.75), (24, 3.0, 0.8125), (32, 1.0, 0.6875))
"""k, temperature and accuracy of the runs that are compared."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A browser, and a server that has three runs; the first built the data and the teacher of
    all, the last led to a registered model."""
    database = new_database(tmp_path_factory)
    mlflow = eyes_on(database, "sounds")
    for number, (k, temperature, accuracy) in enumerate(RUNS):
        happened = a_whole_run(k, temperature, accuracy, hit=number > 0)
        if number == 0:
            happened[1:2] = ingest_built()
        places = {"task": "/recordings/sounds"}
        tracker = mlflow.tracker(name="sounds", settings=SETTINGS, places=places)
        for event in happened:
            tracker(event)
        if number == len(RUNS) - 1:
            store = tmp_path_factory.mktemp("store")
            classifier = random_classifier(Folder.of(store / "finetune" / "feedface"))
            folder = write_model(Folder.of(store / "model" / "feedface"), classifier)
            tracker.register(Classifier(folder, model_facts(), "clips"), "sounds")
        tracker.close()
    with served(database, tmp_path_factory.mktemp("server")) as (server, _), Browser() as browser:
        run = mlflow.runs("tags.kind = 'pipeline'")[0]
        experiment = run.info.experiment_id
        (model,) = mlflow.client.search_model_versions("name = 'unfused-sounds'")
        page = f"{server}/#/experiments/{experiment}/models/{model.tags['model_id']}"
        address = tracking.ui_address(server, experiment)
        yield SimpleNamespace(browser=browser, address=address, model=page)


def test_the_printed_address_shows_k_temperature_and_accuracy_without_a_choice_by_hand(pages):
    pages.browser.open(pages.address)
    shown = pages.browser.wait("sounds k9 T2.5", "sounds k24 T3", "sounds k32 T1", "test_accuracy")
    for column in (*SETTINGS, "0.8125"):
        assert column in shown
    assert "pretrain" not in shown.split("test_accuracy")[-1], "nodes stand apart"


def test_three_runs_that_are_selected_are_compared_by_test_accuracy(pages):
    pages.browser.open(pages.address)
    pages.browser.wait("sounds k9 T2.5")
    pages.browser.select_all()
    pages.browser.click("Compare", exact=True)
    shown = pages.browser.wait("Parallel Coordinates Plot", "test_accuracy")
    assert "scratch.accuracy" not in shown.partition("Run details")[0]


def test_from_a_model_one_comes_to_its_run_the_teacher_and_the_data_by_clicks(pages):
    pages.browser.open(pages.model)
    shown = pages.browser.wait("The classifier", "test_accuracy_own", "unfused-sounds")
    assert "Not registered" not in shown and "0.6875" in shown
    pages.browser.click("this run", exact=True)
    shown = pages.browser.wait("sounds k32 T1", "is chosen: test accuracy 0.688", "teacher:")
    assert "2 classes: a, b" in shown and "/recordings/sounds" in shown
    pages.browser.click("pretrain", exact=True)
    pages.browser.wait("pretrain made from", "clips:")
    pages.browser.click("ingest/task", exact=True)
    pages.browser.wait("clips of /recordings/sounds", "ingest/1111")
