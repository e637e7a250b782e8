"""Two runs of one command at the same time, on one store."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_two_runs_of_one_command_on_one_store_build_every_key_once(program, small_task):
    one, other = program("one"), program("other")
    store = one.folder / "store"
    few = ["arms=[floor,scratch,teacher]", "rounds=1", "pretrain.epochs=4", "finetune.epochs=8"]
    asked = ["--task", str(small_task), "--store", str(store), *TINY, *few]
    with ThreadPoolExecutor(2) as at_once:
        summaries = list(at_once.map(lambda each: each.run(*asked), (one, other)))
    stages = [stage for summary in summaries for stage in summary["stages"]]
    built = Counter(stage["key"] for stage in stages if stage["status"] == "built")
    assert set(built) == {stage["key"] for stage in stages} and set(built.values()) == {1}
    assert summaries[0]["arms"] == summaries[1]["arms"]
    assert not [path for path in (store / "work").rglob("*") if not path.is_dir()]

