"""What a search came to, read from its study."""

from __future__ import annotations

import random
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState

from small_searches import TEMPERATURE, open_study
from unfused.tuning import outcome


def test_what_trials_save_is_less_what_their_search_paid_once_and_a_pruned_one_has_no_score(
    tmp_path,
):
    with open_study(tmp_path, TEMPERATURE) as found:
        found.set_user_attr(outcome.SHARED_SECONDS, 10.0)
        for value in (0.5, 0.6):
            trial = found.ask(dict(TEMPERATURE.distributions))
            trial.set_user_attr("saved_seconds", 10.0)
            trial.set_user_attr("scores", {})
            found.tell(trial, value)
        pruned = found.ask(dict(TEMPERATURE.distributions))
        pruned.report(0.9, 25)
        found.tell(pruned, state=TrialState.PRUNED)
        said = outcome.report(found, TEMPERATURE, found.best_trial)
    assert said["saved_seconds"] == 10.0
    assert [trial.get("values") for trial in said["trials"]] == [[0.5], [0.6], None]


def test_proxies_are_ranked_against_the_labels():
    study = optuna.create_study(direction="maximize")
    distribution = optuna.distributions.FloatDistribution(0, 1)
    for i, accuracy in enumerate((0.2, 0.4, 0.5, 0.9)):
        scores = {"valid_accuracy": accuracy, "effective_rank": i, "held_out_loss": i * i}
        study.add_trial(
            optuna.trial.create_trial(
                params={"x": i / 4},
                distributions={"x": distribution},
                value=accuracy,
                user_attrs={"scores": scores},
            )
        )
    assert outcome.proxies(study) == {"effective_rank": 1.0, "held_out_loss": -1.0}


@pytest.mark.parametrize("directions", [("maximize",), ("minimize",), ("maximize", "minimize")])
def test_what_matters_is_what_the_best_trials_have_in_common(directions, monkeypatch):
    rng = random.Random(0)
    study = optuna.create_study(directions=directions)
    sign = 1 if directions[0] == "maximize" else -1
    both = {name: optuna.distributions.FloatDistribution(0, 1) for name in "xy"}
    for _ in range(60):
        x, y = rng.random(), rng.random()
        value = sign * ((x > 0.9) - 9 * (y < 0.1) + 0.01 * rng.random())
        values = [value, rng.random()][: len(directions)]
        trial = optuna.trial.create_trial(
            params={"x": x, "y": y}, distributions=both, values=values
        )
        study.add_trial(trial)
    space = SimpleNamespace(objectives=dict(zip("ab", directions, strict=False)))
    found = outcome.importances(study, space)
    assert found["x"] > 0.6 > found["y"], "good trials have a large x, the worst a small y"

    pictures = optuna.visualization.matplotlib
    shown: dict[str, float] = {}
    for name in pictures.__all__:
        monkeypatch.setattr(pictures, name, lambda *args, **about: about)
    monkeypatch.setattr(outcome, "_png", lambda about: about)
    for name, about in outcome._pictures(study, space):
        shown |= {name: about["target"](study.trials[0])} if "target" in about else {}
    first = study.trials[0].values[0]
    assert shown["importance.png"] == -sign * first
    assert shown["history.png"] == shown["slice.png"] == first
