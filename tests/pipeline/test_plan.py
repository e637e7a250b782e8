"""The plan: what is a hit, what a change rebuilds, and what is built together."""

from __future__ import annotations

import math

import pytest

from unfused.config import AudioConfig, Config, ConfigError, RunOptions, override
from unfused.data import LabelFacts, PartFacts
from unfused.pipeline import Given, Plan, Ref, Request
from unfused.stages.cluster import ClusterFacts
from unfused.stages.embed import EmbedFacts
from unfused.stages.ingest import ClipCounts, IngestFacts
from unfused.stages.pretrain import TrainedFacts
from unfused.store import Damaged, Store, StoreError, StoreFailed

TRAINED = TrainedFacts(num_clips=12, training_seconds=1.0, curve=[])
FACTS = {
    "pretrain": TRAINED,
    "distill": TRAINED,
    "embed": EmbedFacts(num_clips=12, embedding_dim=8, layer="last"),
    "cluster": ClusterFacts(
        num_clusters=2,
        num_nonempty=2,
        sizes=(6, 6),
        inertia=1.0,
        num_iterations=1,
        points_per_centroid=6.0,
        backend="torch",
        version="1",
        warnings=(),
        num_components=2,
        explained_variance=1.0,
        mean_confidence=1.0,
    ),
}


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


def _plan(folder, changes=None, *, strict=False, **kwargs):
    alone = {
        "teachers.clustered": "encoders",
        "pretrain.objective": "nt_xent",
        "cluster.backend": "torch",
    }
    config = override(Config(), {**alone, **(changes or {})})
    options = RunOptions(store=str(folder / "store"), strict=strict)
    return Plan(Request(config, options, task=str(folder / "task"), **kwargs))


def _ingested():
    parts = {}
    for split in ("train", "valid", "test"):
        parts[split] = PartFacts(
            digest=split,
            shards=[12],
            seconds=9.0,
            durations=[0.75] * 5,
            audio=AudioConfig().settled(),
            log_mel_mean=0.0,
            log_mel_std=1.0,
        )
        parts[f"{split}.labels"] = LabelFacts(
            digest=f"{split}.labels", classes=["hiss", "hum"], counts={"hiss": 6, "hum": 6}
        )
    return IngestFacts(clips=ClipCounts(read=12, quarantined=0), parts=parts)


def _pretend(plan, *names):
    """Commit artifacts for nodes as if they had been built."""
    for name in names:
        plan.refresh()
        step = plan.steps[name]
        facts = _ingested() if step.node.stage == "ingest" else FACTS[step.node.stage]
        store = Store.at(plan.request.options.store)
        work = store.begin(step.node.stage, step.key)
        work.write("x", b"x")
        manifest = {"facts": facts.model_dump(mode="json")}
        store.commit(step.node.stage, step.key, work, manifest)
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


def test_what_is_ready_is_built_side_by_side(folder):
    plan = _plan(folder)
    _pretend(plan, *UP_TO_CLUSTER)
    ready = [[step.node.name for step in group] for group in plan.ready_groups()]
    assert [
        group for group in ready if group[0].startswith(("distill", "finetune/s"))
    ] == [["distill/clusterfit"], ["distill/unfused"], ["finetune/scratch"]]


def test_what_most_nodes_wait_for_is_told_of_what_few_and_of_what_only_a_person_does(folder):
    urgency = _plan(folder).urgency()
    chain = ["ingest/task", "pretrain", "embed", "cluster", "distill/unfused"]
    assert sorted(chain, key=urgency.__getitem__, reverse=True) == chain
    waiting = {name: number for name, (number, _) in urgency.items()}
    assert len({waiting[name] for name in chain}) == len(chain)
    assert waiting["finetune/scratch"] == waiting["finetune/unfused"] == 1
    assert urgency["finetune/unfused"] > urgency["finetune/scratch"]
    assert {name for name, number in waiting.items() if number == math.inf} == {
        name for name in waiting if name.startswith("evaluate/")
    }


def test_a_corpus_without_a_task_is_refused(folder):
    request = Request(Config(), RunOptions(store=str(folder / "s")), corpus=str(folder / "task"))
    with pytest.raises(ConfigError, match="--task"):
        Plan(request)
    assert not (folder / "s").exists()


def test_what_stands_for_a_node_is_known_by_the_digest_of_its_content(folder):
    first = _plan(folder)
    _pretend(first, *UP_TO_CLUSTER)
    teacher = Given.artifact(first.folder(first.steps["pretrain"]).uri)
    with_given = _plan(folder, given={"pretrain": teacher})
    step = with_given.steps["pretrain"]
    assert (step.status, step.key) == ("given", teacher.digest[:16])
    assert with_given.artifact(Ref("pretrain")).folder == teacher.folder
    assert with_given.artifact(Ref("pretrain")).facts == TRAINED
    assert with_given.steps["embed"].status == "miss"
    (teacher.folder / "").write("x", b"other weights")
    assert Given.artifact(teacher.folder.uri).digest != teacher.digest


def test_a_folder_that_is_no_artifact_cannot_stand_for_a_node(tmp_path):
    with pytest.raises(StoreError, match="no finished artifact"):
        Given.artifact(str(tmp_path))


def test_a_manifest_that_may_not_be_read_is_told_with_its_remedy(folder, monkeypatch):
    def closed(store, stage, key):
        raise PermissionError(13, "Permission denied", store.folder(stage, key).path)

    monkeypatch.setattr(Store, "manifest", closed)
    with pytest.raises(StoreFailed, match=r"store/ingest/\w+ any more: .* make it writable"):
        _plan(folder)


def test_a_manifest_that_is_not_one_of_its_stage_is_no_hit(folder):
    plan = _plan(folder)
    step = plan.steps["ingest/task"]
    store = Store.at(plan.request.options.store)
    work = store.begin("ingest", step.key)
    work.write("x", b"x")
    store.commit("ingest", step.key, work, {"facts": {"clips": 3}})
    again = _plan(folder)
    assert again.steps["ingest/task"].status == "miss"
    assert again.damaged[f"ingest/{step.key}"].file == "manifest.json"
    with pytest.raises(Damaged, match="delete that folder"):
        _plan(folder, strict=True)
