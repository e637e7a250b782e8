"""Workers' own state is found wherever it lies in a module; all hear what the first one says."""

from __future__ import annotations

import torch
from torch import nn

from two_ranks import on_two_ranks
from unfused import distributed
from unfused.distributed import PerRank, load_rank_state, rank_state


class Number(PerRank):
    def __init__(self, value: int) -> None:
        super().__init__()
        self.value, self.states = torch.tensor(value), []

    def rank_state(self):
        return {"value": self.value}

    def load_rank_state(self, states):
        self.states = states


class Outer(Number):
    """One with another inside, whose state has the same name."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.layers = nn.Sequential(nn.Linear(2, 2), Number(value + 1), PerRank())


def test_every_part_of_a_module_gets_back_its_own_state_of_all_workers():
    states = [rank_state(nn.Sequential(Outer(10 * rank), nn.ReLU())) for rank in range(3)]
    assert list(states[0]) == ["0.value", "0.layers.1.value"]
    found = nn.Sequential(Outer(0), nn.ReLU())
    load_rank_state(found, states)
    assert [int(state["value"]) for state in found[0].states] == [0, 10, 20]
    assert [int(state["value"]) for state in found[0].layers[1].states] == [1, 11, 21]
    assert all(len(state) == 1 for state in found[0].states)


def test_a_module_that_is_itself_per_worker_has_its_state_by_its_plain_name():
    one = Number(4)
    assert rank_state(one) == {"value": one.value}
    load_rank_state(one, [rank_state(one)])
    assert one.states == [{"value": one.value}]


def test_what_no_worker_holds_is_no_state():
    assert rank_state(nn.Sequential(nn.Linear(2, 2), PerRank())) == {}


def test_a_process_alone_is_the_first_of_one():
    distributed.wait()
    assert (distributed.rank(), distributed.world()) == (0, 1)
    assert distributed.first_says(True, torch.device("cpu"))
    x = torch.ones(2)
    assert distributed.add_over_ranks(x) is x and x.tolist() == [1, 1]


def _talk(rank: int) -> dict[str, object]:
    distributed.wait()
    said = [distributed.first_says(answer == rank, torch.device("cpu")) for answer in (0, 1)]
    total = distributed.add_over_ranks(torch.tensor([1 + rank]))
    who = distributed.rank(), distributed.world()
    return {"said": said, "total": int(total), "who": list(who)}


def test_two_workers_hear_the_first_one_and_add_what_they_hold(tmp_path):
    first, second = on_two_ranks(_talk, tmp_path)
    assert first == {"said": [True, False], "total": 3, "who": [0, 2]}
    assert second == {"said": [True, False], "total": 3, "who": [1, 2]}
