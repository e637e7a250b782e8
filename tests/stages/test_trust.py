"""Trust, the classifiers made of it, and the student that learns what it says: on real parts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import write_part
from unfused import scorers, teachers
from unfused.config import CombineConfig, DrawConfig, EmbedConfig, ScoringConfig, TeachersConfig
from unfused.config import override as changed
from unfused.config.sections import Config
from unfused.data import LabelFacts, all_draws, draw_labels, write_embeddings
from unfused.jobs.selftrain import SelftrainJob
from unfused.probing.facts import TrustFacts, folds_file, labels_file
from unfused.stages import combine, trust
from unfused.stages.contract import Build
from unfused.store import Artifact, Folder, npy, read_npy
from unfused.training import Worker

RATE, CLASSES = 16000, ["high", "low", "mid"]
HERTZ = {"high": 2500.0, "low": 250.0, "mid": 800.0}
DRAWS = DrawConfig(labels_per_class=4, num_repeats=2)
SPECS = ("statistics", "cepstra:centred")


def tone(hertz: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * hertz * time + rng.uniform(0, 6))
    return ((wave + 0.02 * rng.standard_normal(len(time))) * 32767).astype(np.int16)


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> SimpleNamespace:
    """Clips of three pitches, ten of each, what two teachers embed, and what trust makes of it."""
    root, rng = tmp_path_factory.mktemp("trust"), np.random.default_rng(0)
    ids = np.arange(30) % 3
    waves = [
        tone(HERTZ[CLASSES[i]] * rng.uniform(0.9, 1.1), rng.uniform(0.3, 0.9), rng) for i in ids
    ]
    part = write_part(root / "train", waves)
    folder = Folder.of(root / "labels")
    folder.write("labels.npy", npy(ids.astype(np.int32)))
    facts = LabelFacts(digest="l", classes=CLASSES, counts=dict.fromkeys(CLASSES, 10))
    outside = {one.facts.name: one for one in map(teachers.read, SPECS)}
    embeddings = {}
    for name, one in outside.items():
        embeddings[name] = Folder.of(root / "embed" / name)
        embeddings[name].filesystem.create_dir(embeddings[name].path, recursive=True)
        rows = teachers.load(one.folder, one.facts.settled(RATE), torch.device("cpu")).embed(waves)
        # In files of other clips for each: what is read is put together by clip.
        for some in np.array_split(np.arange(30), 2 if name == "statistics" else 3):
            write_embeddings(embeddings[name], some, rows[some])
    made = SimpleNamespace(
        waves=waves, ids=ids, part=part, outside=outside, embeddings=embeddings,
        labels=Artifact(folder, "l", facts), out=Folder.of(root / "trust"), root=root,
    )  # fmt: skip
    built = trust.measure(embeddings, made.labels, TeachersConfig(), DRAWS, made.out, None)
    made.trust = Artifact(made.out, "t", built.facts)
    return made


def test_every_draw_has_its_own_trust(task):
    facts: TrustFacts = task.trust.facts
    assert facts.num_labels == 12 and facts.classes == CLASSES
    for draw in facts.draws:
        assert draw.accuracy["statistics"] >= 0.9
        assert draw.best == "statistics"
        assert draw.weights["statistics"] > draw.weights["cepstra-centred"]


def test_all_clips_are_labelled_by_all_probes_and_by_those_that_were_not_told_a_fold(task):
    for repeat, draw in enumerate(task.trust.facts.draws):
        said = read_npy(task.out, labels_file(repeat)).astype(np.float32)
        assert said.shape == (1 + 4, 30, 3)
        np.testing.assert_allclose(said.sum(2), 1, atol=2e-3)
        folds = read_npy(task.out, folds_file(repeat))
        chosen = draw_labels(task.ids, DRAWS, repeat)
        assert np.array_equal(np.flatnonzero(folds >= 0), chosen)
        assert (said[0].argmax(1) == task.ids).mean() >= draw.pooled - 0.1


def test_a_label_that_the_draw_does_not_have_changes_nothing(task, tmp_path):
    ids = task.ids.copy()
    chosen = set(np.concatenate(all_draws(ids, DRAWS)))
    others = [i for i in range(30) if i not in chosen]
    folder = Folder.of(tmp_path / "labels")
    swapped = ids.copy()
    # Two clips that no draw looks at have each other's class: draws stay what they are.
    a, b = next((i, j) for i in others for j in others if ids[i] != ids[j])
    swapped[[a, b]] = swapped[[b, a]]
    folder.write("labels.npy", npy(swapped.astype(np.int32)))
    for one, other in zip(all_draws(ids, DRAWS), all_draws(swapped, DRAWS), strict=True):
        assert np.array_equal(one, other)
    labels = Artifact(folder, "s", task.labels.facts)
    out = Folder.of(tmp_path / "out")
    built = trust.measure(task.embeddings, labels, TeachersConfig(), DRAWS, out, None)
    assert built.facts == task.trust.facts
    assert np.array_equal(read_npy(out, labels_file(0)), read_npy(task.out, labels_file(0)))


def test_one_label_a_class_leaves_nothing_out_and_all_count_alike(task, tmp_path):
    one = DrawConfig(labels_per_class=1)
    out = Folder.of(tmp_path / "out")
    facts = trust.measure(task.embeddings, task.labels, TeachersConfig(), one, out, None).facts
    assert facts.draws[0].pooled is None
    assert set(facts.draws[0].weights.values()) == {0.25}
    assert read_npy(out, labels_file(0)).shape == (1, 30, 3)


def combined(task, members: str, out: Folder):
    inputs = {"trust": task.trust, "clips": task.part, "original": task.part}
    inputs |= {
        f"teacher/{name}": Artifact(one.folder, one.digest, one.facts)
        for name, one in task.outside.items()
    }
    config = {"combine": CombineConfig(members=members), "embed": EmbedConfig()}
    build = Build("combine/x", config, inputs, out, Folder.of(task.root / "none"))
    return combine.run([build], None)[0].facts


@pytest.mark.parametrize("members", ["best", "all"])
def test_what_is_combined_says_of_clips_what_trust_said(task, tmp_path, members):
    out = Folder.of(tmp_path / "made")
    facts = combined(task, members, out)
    scorer = scorers.load(out, facts)
    given = scorers.given(facts, task.waves, torch.device("cpu"))
    found = scorer.scores(given).softmax(2).numpy()
    assert found.shape == (2, 30, 3)
    assert facts.cross_validated == [
        draw.pooled if members == "all" else draw.accuracy[draw.best]
        for draw in task.trust.facts.draws
    ]
    if members == "all":
        said = [read_npy(task.out, labels_file(repeat))[0] for repeat in range(2)]
        np.testing.assert_allclose(found, np.stack(said).astype(np.float32), atol=5e-3)
    else:
        assert set(scorer.teachers) == {"statistics"}


def test_a_classifier_of_one_draw_needs_the_files_that_it_names_and_no_others(task, tmp_path):
    out, alone = Folder.of(tmp_path / "made"), Folder.of(tmp_path / "alone")
    facts = combined(task, "all", out)
    for name in scorers.files(out, facts, 0):
        alone.write(name, out.read(name))
    one = facts.model_copy(update={"num_repeats": 1})
    given = scorers.given(one, task.waves[:4], torch.device("cpu"))
    whole = scorers.load(out, facts).scores(given)[:1]
    assert torch.equal(scorers.load(alone, one).scores(given), whole)


SMALL = {
    "student.embedding_dim": 32,
    "selftrain.epochs": 4,
    "selftrain.batch_size": 10,
    "selftrain.start": "fresh",
}


def selftrained(task, out: Folder, checkpoints: Folder, **changes):
    config = changed(Config(), {**SMALL, **{f"selftrain.{k}": v for k, v in changes.items()}})
    folder = task.embeddings["statistics"]
    job = SelftrainJob(
        "selftrain/x", task.part, task.labels, task.trust,
        {"statistics": Artifact(folder, "e", None)}, None, config.student, config.selftrain,
        ScoringConfig(), DRAWS, out, checkpoints, range(DRAWS.num_repeats),
    )  # fmt: skip
    return scorers.of_all_draws([job.run(Worker(0, 1, torch.device("cpu"), lambda event: None))])


def weights_of(folder: Folder) -> bytes:
    return b"".join(folder.read(f"{name}.safetensors") for name in ("encoder-01", "head-01"))


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_student_learns_what_the_probes_say_and_is_tried_on_what_it_was_not_told(task, tmp_path):
    out = Folder.of(tmp_path / "out")
    facts = selftrained(task, out, Folder.of(tmp_path / "kept"), epochs=12)
    assert facts.num_repeats == 2 and facts.num_labels == 12
    assert all(0 <= one <= 1 for one in facts.cross_validated)
    given = scorers.given(facts, task.waves, torch.device("cpu"))
    guess = scorers.load(out, facts).scores(given).argmax(2).numpy()
    assert (guess == task.ids).mean() > 0.8


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_an_interrupted_student_ends_where_an_undisturbed_one_does(task, tmp_path):
    whole, halves = Folder.of(tmp_path / "whole"), Folder.of(tmp_path / "halves")
    kept = Folder.of(tmp_path / "kept")
    selftrained(task, whole, Folder.of(tmp_path / "other"))

    class Stop(RuntimeError):
        pass

    def stop(event):
        if (getattr(event, "part", 0), getattr(event, "done", 0)) == (1, 2):
            raise Stop

    config = changed(Config(), SMALL)
    job = SelftrainJob(
        "selftrain/x", task.part, task.labels, task.trust,
        {"statistics": Artifact(task.embeddings["statistics"], "e", None)}, None, config.student,
        config.selftrain, ScoringConfig(), DRAWS, halves, kept, range(DRAWS.num_repeats),
    )  # fmt: skip
    with pytest.raises(Stop):
        job.run(Worker(0, 1, torch.device("cpu"), stop))
    selftrained(task, halves, kept)
    assert weights_of(whole) == weights_of(halves)
