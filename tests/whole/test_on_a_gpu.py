"""On a GPU: arithmetic as on a CPU within rounding, and whole runs that end as there."""

from __future__ import annotations

import pytest
import torch

from conftest import TINY
from unfused import precision
from unfused.audio.augment import Views
from unfused.config import AudioConfig
from unfused.models.clip_encoder import ClipEncoder, log_mel
from unfused.models.encoders.audio_ntt import Config as AudioNTTConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]
GPU = torch.device("cuda")


def noise(clips: int = 6) -> torch.Tensor:
    drawn = torch.randn(clips, 15200, generator=torch.Generator().manual_seed(0))
    return (3000 * drawn).clamp(-32768, 32767).to(torch.int16)


def small_encoder() -> ClipEncoder:
    torch.manual_seed(0)
    return ClipEncoder(
        AudioConfig().settled(), AudioNTTConfig(embedding_dim=128), mean=-7, std=4
    ).eval()


def test_spectrograms_are_those_of_a_cpu():
    mel, samples = log_mel(AudioConfig().settled()), noise()
    there = mel.to(GPU)(samples.to(GPU)).cpu()
    torch.testing.assert_close(there, mel.to("cpu")(samples), rtol=1e-3, atol=2e-3)


def test_views_are_those_of_a_cpu():
    x = log_mel(AudioConfig().settled())(noise())
    found = []
    for device in ("cpu", GPU):
        views = Views(
            mixup_ratio=0.4,
            mixup_bank=0,
            canvas_time=1.5,
            frequency_scale=(0.6, 1.5),
            time_scale=(0.6, 1.5),
            fill=-7.0,
        ).to(device)
        torch.manual_seed(3)
        found.append([view.cpu() for view in views(x.to(device))])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(("kind", "least"), [("float32", 0.9999), ("bfloat16", 0.99)])
def test_embeddings_point_where_those_of_a_cpu_point(kind, least):
    encoder, samples = small_encoder(), noise()
    with torch.no_grad():
        ours = encoder.embed_windows(samples)
        with precision.autocast(GPU, kind):
            theirs = encoder.to(GPU).embed_windows(samples.to(GPU)).float().cpu()
    assert torch.nn.functional.cosine_similarity(ours, theirs).min() >= least


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_runs_with_and_without_the_gpu_agree(program, small_task):
    one = program("gpu")
    said = ("--task", str(small_task), *TINY)
    runs = [one.run(*said, "--gpus-per-worker", share) for share in ("1", "0.5", "0")]
    assert [run["run"]["jobs"] for run in runs[:2]] == [1, 2]
    assert {run["config"]["pretrain.precision"] for run in runs[:2]} == {"bfloat16"}
    for run in runs:
        assert run["chosen"]["accuracy"]["mean"] >= 0.8
    for arm, scores in runs[0]["arms"].items():
        by_cpu = runs[2]["arms"][arm]["accuracy"]["mean"]
        assert abs(scores["accuracy"]["mean"] - by_cpu) <= 0.35, arm
