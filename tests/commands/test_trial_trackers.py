"""Every trial that began has a run of its own, and that run ends."""

from __future__ import annotations

from unfused import events
from unfused.commands.trials import TrialTrackers
from unfused.events import OfTrial, RunFinished, RunStarted, TrialEnded


class _Tracker(list):
    """What a tracker is told, in order."""

    def __call__(self, event: events.Event) -> None:
        self.append(event)

    tag = close = lambda self, *told: self.append(told)


def test_a_search_that_is_stopped_ends_the_runs_of_the_trials_that_ran():
    told: dict[int, _Tracker] = {}
    trials = TrialTrackers(lambda number: told.setdefault(number, _Tracker()))
    started, finished = RunStarted({}, (), {}), RunFinished("FINISHED")
    for number, event in ((0, started), (1, started), (0, finished)):
        trials(OfTrial(number, event))
    trials(TrialEnded(0, "COMPLETE", {}, {}))
    trials(TrialEnded(2, "FAIL", {}, {}))
    trials.close()
    assert told[0] == [started, finished, ({"state": "COMPLETE"},), ()]
    assert told[1] == [started, RunFinished("KILLED"), ()]
    assert set(told) == {0, 1}
