"""The graph is plain data: what builds on what, what is shared, and who may see the test clips."""

import pytest

from unfused import arms
from unfused.config import Config, ConfigError, override
from unfused.pipeline import Given, Ref, Teachers, graph, reseed
from unfused.store import Folder
from unfused.teachers import Outside, TeacherFacts

STAGES = {"ingest", "pretrain", "embed", "cluster", "distill", "finetune", "evaluate"}
SPEECH_FACTS = TeacherFacts(kind="onnx", name="speech", source="", sample_rate=0)
SPEECH = Outside(Folder("/elsewhere"), "e" * 64, SPEECH_FACTS)
FREE = [spec.replace(":", "-") for spec in Config().teachers.also]
JUDGING = [*Config().teachers.judging]
ENCODERS = {"teachers.clustered": "encoders", "pretrain.objective": "nt_xent"}
"""Nothing but encoders, as published."""


def _nodes(changes=None, **kwargs):
    kwargs.setdefault("has_corpus", False)
    return {node.name: node for node in graph(override(Config(), changes or {}), **kwargs)}


def test_the_graph_of_the_defaults_has_every_stage_and_arm():
    names = list(_nodes(has_corpus=True))
    assert names == [
        "ingest/corpus",
        "ingest/task",
        *(f"teacher/{name}" for name in FREE),
        *(f"embed/corpus/{name}" for name in FREE),
        "pretrain",
        *(
            name
            for one in ["", *(f"/{name}" for name in FREE)]
            for name in (f"embed{one}", f"cluster{one}")
        ),
        "distill/clusterfit",
        "distill/unfused",
        *(f"teacher/{name}" for name in JUDGING),
        *(f"embed/{name}" for name in JUDGING),
        "embed/student",
        "trust",
        *(arms.ARMS[arm].classifier for arm in Config().arms),
        *(f"evaluate/{arm}" for arm in Config().arms),
    ]


def test_every_further_round_embeds_the_student_of_the_one_before():
    teachers = {
        name: node.inputs["teacher"]
        for name, node in _nodes({"rounds": 3, "arms": "[unfused]", **ENCODERS}).items()
        if node.stage == "embed"
    }
    assert teachers == {
        "embed/round1": Ref("pretrain"),
        "embed/round2": Ref("distill/round1"),
        "embed": Ref("distill/round2"),
    }
    one = _nodes({"rounds": 1})
    assert one["embed"].inputs["teacher"] == Ref("pretrain")
    assert [name for name in one if "round" in name] == []


def test_the_rounds_leave_the_identity_of_a_stage_alone():
    few, many = _nodes({"rounds": 2}), _nodes({"rounds": 5})
    for name in ("pretrain", "cluster/round1", "distill/round1", "finetune/unfused"):
        assert few[name] == many[name]


@pytest.mark.parametrize(
    "changes", [{}, {"finetune.use_validation": True}, {"cluster.num_clusters": "classes"}]
)
def test_only_evaluate_has_an_edge_to_the_test_clips(changes):
    for node in _nodes(changes).values():
        reads_test = any("test" in ref.part for ref in node.inputs.values())
        assert reads_test == (node.stage == "evaluate"), node.name


def test_no_unsupervised_stage_has_an_edge_to_a_label():
    for node in _nodes().values():
        if node.stage in ("pretrain", "embed", "cluster", "distill"):
            assert not any("labels" in ref.part for ref in node.inputs.values()), node.name
            assert not {"trust", "finetune/unfused"} & {r.node for r in node.inputs.values()}


def test_scoring_on_validation_clips_leaves_the_test_clips_alone():
    nodes = _nodes({"evaluate.split": "valid"})
    assert not any("test" in r.part for node in nodes.values() for r in node.inputs.values())


def test_every_edge_leads_to_an_earlier_node():
    seen = set()
    for name, node in _nodes(has_corpus=True, task_prefix="fold1/", prefix="seed1/").items():
        assert {ref.node for ref in node.inputs.values()} <= seen
        seen.add(name)


@pytest.mark.parametrize(
    ("arms", "stages"),
    [
        ("[scratch]", {"ingest", "finetune", "evaluate"}),
        ("[teacher]", {"ingest", "teacher", "embed", "pretrain", "finetune", "evaluate"}),
        ("[unfused]", STAGES | {"teacher"}),
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


def test_teacher_and_student_have_encoders_of_their_own():
    nodes = _nodes({"teacher.embedding_dim": 1024, "student.embedding_dim": 256})
    made = {name: n.config["encoder"] for name, n in nodes.items() if "encoder" in n.config}
    widths = {name: encoder.embedding_dim for name, encoder in made.items()}
    assert widths.pop("pretrain") == 1024
    assert set(widths.values()) == {256}
    assert {"distill/unfused", "finetune/scratch"} <= set(widths)


def test_an_arm_that_is_not_in_the_table_is_refused_by_name():
    with pytest.raises(ConfigError, match="no arm 'fixmtch'; choose from"):
        override(Config(), {"arms": "[fixmtch]"})


def test_a_teacher_from_outside_takes_the_place_of_pretraining():
    who = Teachers(own=False, outside={"speech": SPEECH})
    nodes = _nodes({"arms": "[unfused]", **ENCODERS}, who=who)
    assert list(nodes) == [
        "ingest/task",
        "teacher/speech",
        "embed/speech",
        "cluster/speech",
        "distill/unfused",
        "finetune/unfused",
        "evaluate/unfused",
    ]
    assert nodes["teacher/speech"].outside == SPEECH
    assert nodes["embed/speech"].inputs["teacher"] == Ref("teacher/speech")
    assert nodes["distill/unfused"].inputs["clusters/speech"] == Ref("cluster/speech")


def test_or_stands_beside_it_and_a_student_has_heads_for_the_clusters_of_each():
    nodes = _nodes(who=Teachers(own=True, outside={"speech": SPEECH}))
    clusters = {k: v for k, v in nodes["distill/unfused"].inputs.items() if k != "clips"}
    others = {f"clusters/{name}": Ref(f"cluster/{name}") for name in ("speech", *FREE)}
    assert clusters == {"clusters": Ref("cluster")} | others
    assert set(nodes["combine/mixture"].inputs) == {
        "clips",
        "original",
        "trust",
        *(f"teacher/{name}" for name in ("own", "speech", *FREE, *JUDGING, "student")),
    }


@pytest.mark.parametrize(
    ("heard", "own", "outside"),
    [("all", True, True), (["own"], True, False), (["speech"], False, True)],
)
def test_a_run_hears_the_teachers_that_it_is_told_to(heard, own, outside):
    told = {"arms": ["unfused", "probe"], "teachers.heard": heard}
    names = _nodes(told, who=Teachers(True, {"speech": SPEECH}))
    assert ("pretrain" in names, "teacher/speech" in names) == (own, outside)
    assert ("cluster" in names, "cluster/speech" in names) == (own, outside)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"teachers.heard": ["ears"]}, "names 'ears', and the teachers are own, speech"),
        ({"teachers.heard": ["speech"]}, "The arm `teacher` is the encoder that is pre-trained"),
        (
            {"teachers.heard": [], "teachers.clustered": "encoders", "arms": ["unfused"]},
            "No teacher is left",
        ),
    ],
)
def test_teachers_that_are_not_there_or_not_enough_are_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        _nodes(changes, who=Teachers(True, {"speech": SPEECH}))


def test_a_teacher_of_a_higher_rate_gets_clips_that_were_ingested_for_it():
    facts = SPEECH_FACTS.model_copy(update={"name": "birds", "sample_rate": 44100})
    birds = Outside(Folder("/elsewhere"), "b" * 64, facts)
    nodes = _nodes(who=Teachers(own=True, outside={"speech": SPEECH, "birds": birds}))
    assert nodes["ingest/task@44100"].config["audio"].sample_rate == 44100
    assert nodes["ingest/task"].config["audio"].sample_rate == 16000
    high, low = Ref("ingest/task@44100"), Ref("ingest/task")
    assert nodes["embed/birds"].inputs["clips"] == high / "train"
    assert nodes["embed/speech"].inputs["clips"] == nodes["embed"].inputs["clips"] == low / "train"
    assert nodes["evaluate/mixture"].inputs["clips"] == high / "test"
    assert nodes["evaluate/selftrain"].inputs["clips"] == low / "test"


def test_trust_looks_at_labels_of_training_clips_alone():
    trust = _nodes()["trust"]
    read = {ref.part for ref in trust.inputs.values()}
    assert read == {"", "train", "train.labels"}
    teachers = {name.partition("/")[2] for name in trust.inputs if "/" in name}
    assert teachers == {"own", *FREE, *JUDGING, "student"}


def test_features_are_trusted_whether_or_not_they_are_clustered():
    nodes = _nodes({"arms": "[unfused,mixture]", **ENCODERS})
    assert [name for name in nodes if name.startswith("cluster")] == ["cluster"]
    trusted = {name.partition("/")[2] for name in nodes["trust"].inputs if "/" in name}
    assert trusted == {"own", *FREE, *JUDGING, "student"}


def test_what_judges_whole_clips_is_learned_by_no_encoder():
    assert JUDGING == ["envelope"]
    for name, node in _nodes().items():
        heard = {ref.node.rpartition("/")[2] for ref in node.inputs.values()}
        if heard & {*JUDGING}:
            assert node.stage in ("embed", "trust", "combine"), name


def test_what_judges_may_be_learned_as_well():
    also = [*Config().teachers.also, *JUDGING]
    nodes = _nodes({"teachers.also": also})
    assert Ref("cluster/envelope") in nodes["distill/unfused"].inputs.values()
    assert "embeddings/envelope" in nodes["selftrain/selftrain"].inputs
    assert [name for name in nodes if name.startswith("teacher/")].count("teacher/envelope") == 1


def test_the_own_teacher_is_trusted_by_what_it_embeds_itself():
    nodes = _nodes({"rounds": 2})
    assert nodes["trust"].inputs["embeddings/own"] == Ref("embed/round1")
    assert nodes["embed/round1"].inputs["teacher"] == Ref("pretrain")
    assert nodes["embed/student"].inputs["teacher"] == Ref("distill/unfused")


def test_selftraining_matches_what_teachers_embed_and_starts_from_the_student():
    inputs = _nodes()["selftrain/selftrain"].inputs
    assert inputs["encoder"] == Ref("distill/unfused")
    assert {name for name in inputs if "/" in name} == {
        f"embeddings/{name}" for name in ("own", *FREE)
    }


@pytest.mark.parametrize("arm", ["mixture", "selftrain"])
def test_an_arm_gives_the_same_whatever_else_is_asked_for(arm):
    alone, among = _nodes({"arms": f"[{arm}]"}), _nodes()
    assert set(alone) <= set(among)
    assert all(alone[name] == among[name] for name in alone)
    assert "distill/unfused" in alone and "finetune/unfused" not in alone


def test_a_probe_needs_no_student():
    names = set(_nodes({"arms": "[probe]"}, who=Teachers(own=False, outside={"speech": SPEECH})))
    assert not {name for name in names if name.startswith(("distill", "cluster", "finetune"))}


def test_fixmatch_has_no_teacher():
    nodes = _nodes({"arms": "[fixmatch]"})
    assert list(nodes) == ["ingest/task", "selftrain/fixmatch", "evaluate/fixmatch"]


def test_the_chosen_arm_is_right_most_often_on_clips_that_it_was_not_told():
    estimates = {"floor": [0.5, 0.9], "scratch": [0.7, 0.9], "mixture": None, "unfused": [0.6, 0.9]}
    assert arms.chosen(estimates, 2, num_labels=50) == ["scratch", "unfused"]
    assert arms.chosen({"floor": None, "mixture": None}, 3, 50) == ["mixture"] * 3
    assert set(arms.PREFERENCE) == set(arms.ARMS)


@pytest.mark.parametrize(
    ("mixture", "selftrain", "num_labels", "takes"),
    [
        (0.98, 1.00, 50, "mixture"),
        (0.94, 1.00, 50, "selftrain"),
        (0.94, 1.00, 5, "mixture"),
        (0.78, 0.84, 50, "selftrain"),
        (0.80, 0.84, 50, "mixture"),
        (0.80, 0.84, 500, "selftrain"),
        (0.98, 0.98 + 1e-8, 10**6, "mixture"),
    ],
)
def test_arms_within_a_standard_error_of_the_best_go_by_preference(
    mixture, selftrain, num_labels, takes
):
    estimates = {"selftrain": [selftrain], "mixture": [mixture]}
    assert arms.chosen(estimates, 1, num_labels) == [takes]


def test_a_node_may_stand_for_what_is_already_there():
    teacher = Given(Folder("/elsewhere/pretrain/abc"), "d" * 64, {})
    nodes = _nodes({"rounds": 1}, given={"pretrain": teacher})
    assert nodes["pretrain"].given == teacher
    assert not nodes["pretrain"].inputs and not nodes["pretrain"].config
    assert nodes["embed"].inputs["teacher"] == Ref("pretrain")
