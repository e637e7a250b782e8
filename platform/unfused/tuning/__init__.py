"""Ray Tune and Optuna look for better settings; a trial is a pipeline run.

    request     what a person asked for
    space       what may change, from a file of search_spaces/
    metrics     what a trial can be judged by
    study       the Optuna study: what was tried, what comes next, what is given up
    capacity    how many trials run at a time
    shared      the nodes that are the same in every trial
    run         a search from its first node to its last picture
    trial       one trial, in a process of Ray Tune's
    quality     judgements of a student: the probe, and scores that need no label
    outcome     tables and pictures of a study

The rule of this room: a search never sees a test clip. The best trial's score on them is asked for
once, when the search has ended.
"""

from unfused.tuning.capacity import concurrency
from unfused.tuning.request import SearchRequest
from unfused.tuning.run import SearchFailed, SearchRun
from unfused.tuning.shared import shared_nodes

__all__ = ["SearchFailed", "SearchRequest", "SearchRun", "concurrency", "shared_nodes"]
