"""What no setting of the space reaches is built once for all trials."""

from __future__ import annotations

import pytest

from small_searches import plan_of, space_of
from unfused.tuning import shared_nodes


@pytest.mark.parametrize(
    ("keys", "shared", "own"),
    [
        (("distill.temperature", "distill.kl_weight"), "cluster", "distill/unfused"),
        (("cluster.num_clusters",), "embed/round1", "cluster/round1"),
        (("embed.layer",), "pretrain", "embed/round1"),
        (("clusterings",), "cluster/round1", "distill/round1"),
        (("pretrain.epochs",), "ingest/task", "pretrain"),
    ],
)
def test_what_no_setting_of_the_space_reaches_is_shared(small_task, tmp_path, keys, shared, own):
    space = space_of(*keys)
    plan, _ = plan_of(small_task, space, tmp_path)
    found = shared_nodes(plan, space)
    assert shared in found and own not in found
    assert plan.upstream(found) == found
