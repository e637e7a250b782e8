"""The embed stage with a teacher from outside: every worker its share, whole, at its rate."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from small_models import not_finite_when_silent, of_samples

from conftest import write_part
from two_ranks import on_two_ranks
from unfused import stages, teachers, training
from unfused.audio.decode import resample
from unfused.audio.samples import to_int16
from unfused.config import ConfigError, EmbedConfig
from unfused.data import read_embeddings
from unfused.jobs.embed import OutsideEmbedJob
from unfused.stages import embed
from unfused.stages.contract import Build
from unfused.store import Artifact, Folder


def clips(silent=()) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    waves = [
        (3000 * rng.standard_normal(rng.integers(50, 9000))).astype(np.int16) for _ in range(20)
    ]
    return [0 * wave if i in silent else wave for i, wave in enumerate(waves)]


def job_on(tmp_path, path, waves, batch_size=6):
    found = teachers.read(f"onnx:{path}")
    teacher = Artifact(found.folder, found.digest[:16], found.facts)
    config = EmbedConfig(batch_size=batch_size)
    part = write_part(tmp_path / "part", waves)
    return OutsideEmbedJob("embed", part, teacher, config, Folder.of(tmp_path / "out"))


def alone(job, told=None):
    emit = told.append if told is not None else lambda event: None
    return job.run(training.Worker(0, 1, torch.device("cpu"), emit))


def rows_of(job) -> np.ndarray:
    found = list(read_embeddings(job.out))
    clip = np.concatenate([c for c, _ in found])
    assert clip.tolist() == list(range(20))
    return np.concatenate([rows for _, rows in found])


def test_every_clip_is_embedded_whole_in_order(tmp_path):
    waves, path = clips(), of_samples(tmp_path / "m.onnx")
    job = job_on(tmp_path, path, waves)
    told = alone(job)
    found = teachers.read(f"onnx:{path}")
    wanted = teachers.load(found.folder, found.facts, torch.device("cpu")).embed(waves)
    np.testing.assert_allclose(rows_of(job), wanted, rtol=1e-4, atol=1e-6)
    assert (told.width, told.num_quarantined) == (8, 0)
    assert job.out.read_json("quarantine.json") == []


def test_clips_are_resampled_to_what_the_teacher_takes(tmp_path):
    waves, path = clips(), of_samples(tmp_path / "m.onnx")
    (tmp_path / "m.json").write_text('{"sample_rate": 8000, "level": "float"}')
    job = job_on(tmp_path, path, waves)
    alone(job)
    found = teachers.read(f"onnx:{path}")
    halves = [to_int16(resample(wave / 32768, 16000, 8000)) for wave in waves]
    wanted = teachers.load(found.folder, found.facts, torch.device("cpu")).embed(halves)
    np.testing.assert_allclose(rows_of(job), wanted, rtol=1e-3, atol=1e-4)


def test_a_higher_rate_than_the_clips_have_is_refused_before_anything_runs(tmp_path):
    path = of_samples(tmp_path / "m.onnx")
    (tmp_path / "m.json").write_text('{"sample_rate": 44100}')
    job = job_on(tmp_path, path, clips())
    inputs = {"clips": job.clips, "teacher": job.teacher}
    build = Build("embed", {"embed": job.config}, inputs, job.out, job.out)
    with pytest.raises(ConfigError, match=r"takes 44100 Hz and the clips have 16000"):
        embed.run([build], None)
    with pytest.raises(ConfigError, match=r"audio\.sample_rate=44100"):
        alone(job)


SILENT = (3, 4, 17)


class Here:
    """Workers of a cluster, as far as the stage knows them: this process, and jobs that travel."""

    def run(self, jobs):
        return [alone(pickle.loads(pickle.dumps(job))) for job in jobs]


def test_the_stage_says_what_came_of_it(tmp_path):
    job = job_on(tmp_path, not_finite_when_silent(tmp_path / "m.onnx"), clips(SILENT))
    inputs = {"clips": job.clips, "teacher": job.teacher}
    build = Build("embed", {"embed": job.config}, inputs, job.out, job.out)
    (built,) = embed.run([build], Here())
    facts = built.facts
    assert (facts.num_clips, facts.embedding_dim, facts.num_quarantined) == (20, 2, 3)
    assert facts.layer == "last"


def test_the_facts_of_a_teacher_pass_through_a_manifest(tmp_path):
    found = teachers.read(f"onnx:{of_samples(tmp_path / 'm.onnx')}")
    manifest = json.loads(json.dumps(found.facts.model_dump(mode="json")))
    assert stages.get("teacher").facts.model_validate(manifest) == found.facts


def test_a_teacher_is_copied_into_the_store_and_embeds_from_there(tmp_path):
    found = teachers.read(f"onnx:{of_samples(tmp_path / 'm.onnx')}")
    out = Folder.of(tmp_path / "store")
    build = Build("teacher/m", {}, {}, out, out, outside=found)
    (built,) = stages.get("teacher").run([build], None)
    (tmp_path / "m.onnx").unlink()
    waves = [np.full(9000, 100, np.int16)]
    cpu = torch.device("cpu")
    assert built.facts == found.facts
    assert np.isfinite(teachers.load(out, built.facts, cpu).embed(waves)).all()


def quarantined(job) -> list[str]:
    return [row["digest"] for row in job.out.read_json("quarantine.json")]


def check_mean_in_place_of_nan(job, waves):
    rows = rows_of(job)
    good = np.array([i not in SILENT for i in range(20)])
    sizes = [np.abs(wave / 32768).mean() for wave in waves]
    np.testing.assert_allclose(rows[good, 0], np.array(sizes)[good], rtol=1e-3)
    np.testing.assert_allclose(rows[~good], np.tile(rows[good].mean(0), (3, 1)), rtol=1e-4)
    assert quarantined(job) == [f"digest-{i}" for i in SILENT]


def test_a_clip_on_which_the_teacher_gives_nan_is_quarantined_and_gets_the_mean(tmp_path):
    waves = clips(SILENT)
    job = job_on(tmp_path, not_finite_when_silent(tmp_path / "m.onnx"), waves)
    events = []
    assert alone(job, events).num_quarantined == 3
    check_mean_in_place_of_nan(job, waves)
    texts = [event.text for event in events if getattr(event, "level", "") == "warning"]
    assert len([text for text in texts if "3 of 20 clips are quarantined" in text]) == 1


def _on_rank(rank: int, job: OutsideEmbedJob) -> int:
    worker = training.Worker(rank, 2, torch.device("cpu"), lambda event: None)
    return job.run(worker).num_quarantined


def test_two_workers_quarantine_as_one_does(tmp_path):
    waves = clips(SILENT)
    job = job_on(tmp_path, not_finite_when_silent(tmp_path / "m.onnx"), waves)
    (tmp_path / "ranks").mkdir()
    assert on_two_ranks(_on_rank, tmp_path / "ranks", job) == [3, 3]
    check_mean_in_place_of_nan(job, waves)


def test_a_teacher_that_gives_no_finite_number_at_all_is_refused(tmp_path):
    job = job_on(tmp_path, not_finite_when_silent(tmp_path / "m.onnx"), clips(range(20)))
    with pytest.raises(ConfigError, match=r"for each of the 20 clips; check its sample_rate"):
        alone(job)


def test_a_replaced_worker_leaves_every_clip_once(tmp_path):
    waves = clips(SILENT)
    job = job_on(tmp_path, not_finite_when_silent(tmp_path / "m.onnx"), waves)
    alone(job)
    alone(job)
    check_mean_in_place_of_nan(job, waves)
