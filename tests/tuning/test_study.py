"""A study forgets nothing, and every trial in it ends."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from small_searches import TEMPERATURE, open_study, space_of
from unfused.config import ConfigError
from unfused.tuning.space import Space
from unfused.tuning.study import Proposer, Pruning, opened


@pytest.fixture
def study(tmp_path):
    """`study(space)` opens one and the same study on disk."""

    def open_it(space: Space, **changes):
        return open_study(tmp_path, space, **changes)

    return open_it


def _ended(score: float | None = None, **said) -> dict:
    scores = {} if score is None else {"scores": {"valid_accuracy": score}}
    return {"outcome": json.dumps({**scores, "hits": 1, **said})}


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_seed_proposes_the_same_trials_and_two_objectives_have_a_front(sampler, tmp_path):
    both = {"valid_accuracy": "maximize", "student_parameters": "minimize"}
    space = space_of("distill.temperature", "distill.head_width", objectives=both)

    def proposals(name: str, seed: int) -> list[dict]:
        path = str(tmp_path / f"{name}.journal")
        with opened(path, "some", space, sampler, "none", seed, {}) as found:
            for _ in range(3):
                trial = found.ask()
                width = space.suggest(trial)["distill.head_width"]
                found.tell(trial, [width / 512, float(width)])
            widths = {t.params["distill.head_width"] for t in found.trials}
            assert {t.params["distill.head_width"] for t in found.best_trials} == widths
            return [trial.params for trial in found.trials]

    assert proposals("one", 0) == proposals("two", 0) != proposals("three", 1)


def test_every_trial_ends_whatever_came_of_it(study):
    with study(TEMPERATURE) as found:
        proposer = Proposer(found, TEMPERATURE, lambda trial: None)
        for name in "abcde":
            proposer.suggest(name)
        proposer.on_trial_complete("a", _ended(0.5))
        proposer.on_trial_complete("b", _ended(math.nan))
        proposer.on_trial_complete("c", _ended())
        proposer.on_trial_complete("d", {"progress": 25, "probe": 0.1})
        proposer.on_trial_complete("e", error=True)
        states = [trial.state for trial in found.trials]
        fail = TrialState.FAIL
        assert states == [TrialState.COMPLETE, fail, fail, TrialState.PRUNED, fail]
        reasons = [trial.user_attrs.get("failed", "") for trial in found.trials]
        assert reasons[1:3] == ["valid_accuracy is nan", "valid_accuracy is missing"]
        assert reasons[4] == "its process died"


def test_two_objectives_with_one_missing_are_a_failure(study):
    space = space_of(
        "distill.epochs", objectives={"valid_accuracy": "maximize", "student_seconds": "minimize"}
    )
    with study(space) as found:
        proposer = Proposer(found, space, lambda trial: None)
        proposer.suggest("a")
        proposer.on_trial_complete("a", _ended(0.5))
        assert found.trials[0].state == TrialState.FAIL
        assert not proposer.states or proposer.states == [TrialState.FAIL]


def test_a_study_goes_on_where_it_was_left_with_the_open_trial_first(study):
    with study(TEMPERATURE) as found:
        proposer = Proposer(found, TEMPERATURE, lambda trial: None)
        first = proposer.suggest("a")
        proposer.on_trial_complete("a", _ended(0.5))
        left = proposer.suggest("b")
    with study(TEMPERATURE) as found:
        proposer = Proposer(found, TEMPERATURE, lambda trial: None)
        assert proposer.suggest("x") == left
        proposer.on_trial_complete("x", _ended(0.6))
        new = proposer.suggest("y")
        assert new["number"] == 2
        assert new["changes"] not in (first["changes"], left["changes"])
        assert [trial.value for trial in found.trials[:2]] == [0.5, 0.6]


def test_one_search_at_a_time_holds_a_study_on_disk(study):
    with (
        study(TEMPERATURE),
        pytest.raises(ConfigError, match="Another search"),
        study(TEMPERATURE),
    ):
        pass


@pytest.mark.parametrize(
    ("location", "says"),
    [("sqlite:////no/such/folder/s.db", "cannot be opened"), ("redis://host/0", "name a file")],
)
def test_a_database_that_cannot_be_opened_is_one_sentence(location, says):
    with (
        pytest.raises(ConfigError, match=says) as refused,
        opened(location, "some", TEMPERATURE, "tpe", "none", 0, {}),
    ):
        pass
    assert "\n" not in str(refused.value)


def test_what_fails_while_a_database_is_open_is_not_blamed_on_it(tmp_path):
    location = f"sqlite:///{tmp_path}/s.db"
    with (
        pytest.raises(OSError, match="disk is full"),
        opened(location, "some", TEMPERATURE, "tpe", "none", 0, {}),
    ):
        raise OSError("disk is full")


@pytest.mark.parametrize(
    ("space", "identity", "says"),
    [
        (replace(TEMPERATURE, objectives={"held_out_loss": "minimize"}), {}, "objectives"),
        (replace(TEMPERATURE, objectives={"effective_rank": "maximize"}), {}, "objectives"),
        (space_of("distill.kl_weight"), {}, "distributions"),
        (TEMPERATURE, {"settings": "b", "clips": "a"}, "settings"),
        (TEMPERATURE, {"settings": "a", "clips": "b"}, "clips"),
    ],
)
def test_trials_that_are_not_comparable_need_another_study(study, space, identity, says):
    same = {"settings": "a", "clips": "a"}
    for before in ({"settings": "refused", "clips": "refused"}, same, same):
        with study(TEMPERATURE, identity=before) as found:
            if before is same:
                found.ask()
    with (
        pytest.raises(ConfigError, match=f"other {says}; .*--study") as refused,
        study(space, identity={**same, **identity}),
    ):
        pass
    assert "\n" not in str(refused.value)


def test_a_database_that_does_not_answer_is_one_sentence_without_its_password():
    where = "postgresql://me:lantern@harbour@127.0.0.1:9/studies?sslpassword=orchard"
    with (
        pytest.raises(ConfigError, match=r"://me:\*\*\*@127.* cannot be opened: ") as refused,
        opened(where, "some", TEMPERATURE, "tpe", "none", 0, {}),
    ):
        pass
    said = str(refused.value)
    assert "127.0.0.1" in said and "driver" not in said and "\n" not in said
    assert not any(part in said for part in ("lantern", "harbour", "orchard"))


def test_a_study_of_somebody_else_with_other_directions_is_refused(tmp_path):
    location = f"sqlite:///{tmp_path}/s.db"
    optuna.create_study(storage=location, study_name="some", direction="minimize")
    with (
        pytest.raises(ConfigError, match="other objectives"),
        opened(location, "some", TEMPERATURE, "tpe", "none", 0, {}),
    ):
        pass


def test_a_study_of_somebody_else_with_trials_is_refused(tmp_path):
    location = f"sqlite:///{tmp_path}/s.db"
    optuna.create_study(storage=location, study_name="some", direction="maximize").ask()
    with (
        pytest.raises(ConfigError, match="other objectives"),
        opened(location, "some", TEMPERATURE, "tpe", "none", 0, {}),
    ):
        pass


def test_a_trial_far_below_the_others_is_pruned_and_a_good_one_is_not(study):
    with study(TEMPERATURE) as found:
        proposer = Proposer(found, TEMPERATURE, lambda trial: None)
        pruning = Pruning(proposer)
        for name in "abcd":
            proposer.suggest(name)
            assert not pruning(name, {"progress": 25, "probe": 0.5})
            proposer.on_trial_complete(name, _ended(0.7))
        proposer.suggest("bad")
        proposer.suggest("good")
        assert pruning("bad", {"progress": 25, "probe": 0.1})
        assert not pruning("good", {"progress": 25, "probe": 0.6})


def test_a_search_in_which_everything_fails_stops(study):
    with study(TEMPERATURE) as found:
        proposer = Proposer(found, TEMPERATURE, lambda trial: None)
        pruning = Pruning(proposer)
        for name in "abcde":
            assert not pruning.stop_all()
            proposer.suggest(name)
            proposer.on_trial_complete(name, error=True)
        assert pruning.stop_all()


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"sampler": "best"}, "tpe, nsga2, random"), ({"pruner": "best"}, "median, halving, none")],
)
def test_an_unknown_sampler_or_pruner_names_those_there_are(study, changes, says):
    with pytest.raises(ConfigError, match=says), study(TEMPERATURE, **changes):
        pass


def test_a_journal_that_is_torn_is_cut_back_to_its_last_whole_record_and_that_is_told(tmp_path):
    space = TEMPERATURE
    with open_study(tmp_path, space) as study:
        study.ask(space.distributions)
        trials = len(study.trials)
    journal = tmp_path / "s.journal"
    whole = journal.read_bytes()
    for rest in (b'{"op_code": 4, "study_id"', b"\x00\xff garbage\n" + whole):
        journal.write_bytes(whole + rest)
        told: list = []
        with open_study(tmp_path, space, tell=told.append) as study:
            assert len(study.trials) == trials
        assert len(told) == 1 and str(journal) in told[0]
        (copy,) = tmp_path.glob("s.journal.damaged-*")
        assert copy.read_bytes() == whole + rest
        copy.unlink()
        with open_study(tmp_path, space, tell=told.append) as study:
            study.ask(space.distributions)
            trials = len(study.trials)
        whole = journal.read_bytes()
        assert len(told) == 1


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_search_that_was_killed_goes_on_as_one_that_was_left_alone(sampler, tmp_path):
    space = space_of("distill.temperature", "distill.head_width")

    def search(name: str, killed_after: tuple[int, ...]) -> list[tuple]:
        path, begun = str(tmp_path / f"{name}.journal"), 0
        for limit in (*killed_after, 30):
            with opened(path, "some", space, sampler, "none", 3, {}) as found:
                proposer = Proposer(found, space, lambda trial: None)
                while begun < limit:
                    number = proposer.suggest("a")["number"]
                    if number + 1 == limit and limit < 30:
                        # Its process dies before it has told anything.
                        break
                    begun = number + 1
                    params = found.trials[number].params
                    score = params["distill.temperature"] * params["distill.head_width"] / 5000
                    proposer.on_trial_complete("a", _ended(score))
        return [(trial.params, trial.value) for trial in found.trials]

    alone = search("alone", ())
    assert len(alone) == 30 and search("killed", (4, 5, 17)) == alone
