"""The graph is plain data: what builds on what, what is shared, and who may see the test clips."""

import pytest

from unfused.config import Config, ConfigError, RunOptions, override
from unfused.pipeline import Plan, Request, graph, reseed
from unfused.stages import NAMES
from unfused.store import Store


def _nodes(changes=None, **kwargs):
    kwargs.setdefault("has_corpus", False)
    return {node.name: node for node in graph(override(Config(), changes or {}), **kwargs)}


def test_the_graph_of_the_defaults_has_every_stage_and_arm():
    names = list(_nodes(has_corpus=True))
    assert names == [
        "ingest/corpus",
        "ingest/task",
        "pretrain",
        "embed/round1",
        "cluster/round1",
        "distill/round1",
        "embed",
        "cluster",
        "distill/unfused",
        "distill/clusterfit",
        *(f"finetune/{arm}" for arm in Config().arms),
        *(f"evaluate/{arm}" for arm in Config().arms),
    ]


def test_every_further_round_embeds_the_student_of_the_one_before():
    teachers = {
        name: node.inputs["teacher"]
        for name, node in _nodes({"rounds": 3}).items()
        if node.stage == "embed"
    }
    assert teachers == {
        "embed/round1": "pretrain",
        "embed/round2": "distill/round1",
        "embed": "distill/round2",
    }
    one = _nodes({"rounds": 1})
    assert one["embed"].inputs["teacher"] == "pretrain"
    assert [name for name in one if "round" in name] == []


def test_the_rounds_leave_the_identity_of_a_stage_alone():
    few, many = _nodes({"rounds": 2}), _nodes({"rounds": 5})
    for name in ("pretrain", "cluster/round1", "distill/round1", "finetune/unfused"):
        assert few[name] == many[name]


@pytest.mark.parametrize("changes", [{}, {"finetune.use_validation": True},
                                     {"cluster.num_clusters": "classes"}])
def test_only_evaluate_has_an_edge_to_the_test_clips(changes):
    for node in _nodes(changes).values():
        reads_test = any(":test" in ref for ref in node.inputs.values())
        assert reads_test == (node.stage == "evaluate"), node.name


def test_no_unsupervised_stage_has_an_edge_to_a_label():
    for node in _nodes().values():
        if node.stage in ("pretrain", "embed", "cluster", "distill"):
            assert not any("labels" in ref for ref in node.inputs.values()), node.name


def test_scoring_on_validation_clips_leaves_the_test_clips_alone():
    nodes = _nodes({"evaluate.split": "valid"})
    assert not any(":test" in ref for node in nodes.values() for ref in node.inputs.values())


def test_every_edge_leads_to_an_earlier_node():
    seen = set()
    for name, node in _nodes(has_corpus=True, task_prefix="fold1/", prefix="seed1/").items():
        assert {ref.partition(":")[0] for ref in node.inputs.values()} <= seen
        seen.add(name)
        assert node.stage in NAMES


@pytest.mark.parametrize(
    ("arms", "stages"),
    [
        ("[scratch]", {"ingest", "finetune", "evaluate"}),
        ("[teacher]", {"ingest", "pretrain", "finetune", "evaluate"}),
        ("[unfused]", set(NAMES)),
    ],
)
def test_an_arm_builds_only_what_it_needs(arms, stages):
    assert {node.stage for node in _nodes({"arms": arms}).values()} == stages


def test_clusterfit_is_the_student_with_the_deep_heads_cross_entropy_alone():
    nodes = _nodes()
    plain, full = nodes["distill/clusterfit"].config, nodes["distill/unfused"].config
    weights = ("shallow_weight", "kl_weight", "cosine_weight")
    assert [getattr(plain["distill"], name) for name in weights] == [0, 0, 0]
    same = {name: 0.0 for name in weights}
    assert full["distill"].model_copy(update=same) == plain["distill"]
    assert nodes["distill/clusterfit"].inputs == nodes["distill/unfused"].inputs


def test_reseeding_changes_the_learned_stages_and_not_the_ingest():
    before, after = Config(), reseed(Config(), 1)
    assert after.pretrain.seed == before.pretrain.seed + 1
    assert after.finetune.seed == before.finetune.seed + 1
    assert (after.data, after.ingest, after.audio) == (before.data, before.ingest, before.audio)


@pytest.fixture
def folder(tmp_path):
    """A task of two classes as a folder of files; planning opens none of them."""
    for split, count in (("train", 6), ("valid", 2), ("test", 2)):
        for label in ("hum", "hiss"):
            place = tmp_path / "task" / split / label
            place.mkdir(parents=True)
            for i in range(count):
                (place / f"{i}.wav").write_bytes(f"{split}{label}{i}".encode())
    return tmp_path


def _plan(folder, changes=None, **kwargs):
    config = override(Config(), {"rounds": 1, "cluster.backend": "torch", **(changes or {})})
    options = RunOptions(store=str(folder / "store"))
    return Plan(Request(config, options, task=str(folder / "task"), **kwargs))


def _pretend(plan, *names):
    """Commit artifacts for nodes as if they had been built."""
    for name in names:
        plan.refresh()
        step = plan.steps[name]
        facts = {}
        if step.node.stage == "ingest":
            parts = ("train", "valid", "test")
            facts = {"parts": {p + s: {"digest": p + s} for p in parts for s in ("", ".labels")}}
        store = Store.at(plan.request.options.store)
        work = store.begin(step.node.stage, step.key)
        work.write("x", b"x")
        store.commit(step.node.stage, step.key, work, {"facts": facts})
    plan.refresh()


UP_TO_CLUSTER = ("ingest/task", "pretrain", "embed", "cluster")


def test_keys_behind_the_ingest_are_known_only_after_it(folder):
    plan = _plan(folder)
    assert plan.steps["ingest/task"].status == "miss"
    assert plan.steps["pretrain"].status == "after ingest"
    _pretend(plan, "ingest/task")
    assert plan.steps["pretrain"].status == "miss"


def test_another_number_of_clusters_keeps_the_teacher_and_its_embeddings(folder):
    first = _plan(folder, {"cluster.num_clusters": 4})
    _pretend(first, *UP_TO_CLUSTER, "distill/unfused")
    second = _plan(folder, {"cluster.num_clusters": "8"})
    status = {name: step.status for name, step in second.steps.items()}
    assert [status[name] for name in ("ingest/task", "pretrain", "embed")] == ["hit"] * 3
    assert [status[name] for name in ("cluster", "distill/unfused")] == ["miss"] * 2


def test_another_temperature_keeps_the_clusters(folder):
    _pretend(_plan(folder), *UP_TO_CLUSTER, "distill/unfused", "distill/clusterfit")
    other = _plan(folder, {"distill.kl_weight": 0.5})
    assert other.steps["cluster"].status == "hit"
    assert other.steps["distill/unfused"].status == "miss"
    assert other.steps["distill/clusterfit"].status == "hit"


def test_a_changed_file_rebuilds_the_ingest_and_names_the_rest_after_it(folder):
    _pretend(_plan(folder), "ingest/task", "pretrain")
    (folder / "task/train/hum/0.wav").write_bytes(b"other bytes")
    plan = _plan(folder)
    assert plan.steps["ingest/task"].status == "miss"
    assert plan.steps["pretrain"].status == "after ingest"


def test_seeds_share_the_ingest_and_repeat_the_learned_stages(folder):
    plan = _plan(folder, seeds=2)
    names = set(plan.steps)
    assert "ingest/task" in names and "seed0/ingest/task" not in names
    assert {"seed0/pretrain", "seed1/pretrain"} <= names
    _pretend(plan, "ingest/task")
    assert plan.steps["seed0/pretrain"].key != plan.steps["seed1/pretrain"].key


def test_one_seed_of_several_is_the_run_with_one_seed(folder):
    several, one = _plan(folder, seeds=2), _plan(folder)
    _pretend(several, "ingest/task")
    one.refresh()
    assert several.steps["seed0/pretrain"].key == one.steps["pretrain"].key


def test_what_is_ready_together_is_built_together(folder):
    plan = _plan(folder)
    _pretend(plan, *UP_TO_CLUSTER)
    group = [step.node.name for step in plan.next_group()]
    assert group == ["distill/unfused", "distill/clusterfit"]


def test_a_corpus_without_a_task_is_refused(folder):
    request = Request(Config(), RunOptions(store=str(folder / "s")), corpus=str(folder / "task"))
    with pytest.raises(ConfigError, match="--task"):
        Plan(request)
    assert not (folder / "s").exists()
