"""What the platform is measured against: small honest programs of this project's own.

`PerClip` is the path that released audio-SSL code takes: every epoch loads, resamples and
transforms one clip at a time. `InMemoryLoop` is what an expert writes in an afternoon when all
waveforms fit in memory: it has nothing to stream, so it is the ceiling for what streaming reaches.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import librosa
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unfused import precision
from unfused.audio.frontend import LOG_FLOOR
from unfused.config import AudioConfig, Config, PretrainConfig, override, preset
from unfused.jobs.pretrain import PretrainLearner
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.encoders import audio_ntt

AUDIO = AudioConfig().settled()


class PerClip(Dataset):
    """Log-mel of files, one clip at a time with librosa."""

    def __init__(self, paths: Sequence[Path], num_samples: int) -> None:
        self.paths, self.num_samples = paths, num_samples

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        wave, _ = librosa.load(self.paths[index], sr=AUDIO.sample_rate)
        wave = librosa.util.fix_length(wave, size=self.num_samples)
        return torch.from_numpy(per_clip_log_mel(wave))


def per_clip_log_mel(wave: np.ndarray) -> np.ndarray:
    """(S,) float32 to log-mel (F, T); all of it in float64 where the wave is."""
    mel = librosa.feature.melspectrogram(
        y=wave,
        sr=AUDIO.sample_rate,
        n_fft=AUDIO.n_fft,
        hop_length=AUDIO.hop_length,
        n_mels=AUDIO.n_mels,
        fmin=AUDIO.f_min,
        fmax=AUDIO.f_max,
        pad_mode="constant",
        dtype=wave.dtype,
    )
    return np.log(mel + wave.dtype.type(LOG_FLOOR))


def contrast() -> Config:
    """The defaults with NT-Xent, the objective that people's own loops have: two views, batches of
    64."""
    changes = {"pretrain.objective": "nt_xent", "pretrain.batch_size": 64}
    return override(preset("recommended"), changes)


def per_clip_epoch(paths: Sequence[Path], num_samples: int, batch_size: int) -> None:
    """Read all clips once, as a training loop of such code would."""
    for _ in DataLoader(PerClip(paths, num_samples), batch_size, shuffle=True):
        pass


class InMemoryLoop:
    """The pre-training loop on one tensor of waveforms: same model, objective and front end.

    Args:
        waves: (N, S) int16.
        config: of the pre-training.
        embedding_dim: D.
    """

    def __init__(self, waves: Tensor, config: PretrainConfig, embedding_dim: int) -> None:
        torch.manual_seed(config.seed)
        self.waves, self.config = waves, config
        settings = audio_ntt.Config(embedding_dim=embedding_dim)
        encoder = ClipEncoder(AUDIO, settings, mean=-7.0, std=4.0)
        self.learner = PretrainLearner(encoder, config, range(len(waves)), len(waves))
        self.optimizer = torch.optim.AdamW(
            self.learner.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )

    def epoch(self) -> float:
        """Train on all clips once; returns clips per second."""
        began, device = time.perf_counter(), torch.device("cpu")
        self.learner.train()
        steps = max(1, round(len(self.waves) / self.config.batch_size))
        room = self.waves.shape[1] - AUDIO.crop_samples
        for rows in torch.randperm(len(self.waves)).tensor_split(steps):
            at = torch.randint(room + 1, (len(rows), 1)) + torch.arange(AUDIO.crop_samples)
            batch = {"samples": self.waves[rows].gather(1, at), "clip": rows}
            with precision.autocast(device, self.config.precision):
                loss = self.learner(batch)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return len(self.waves) / (time.perf_counter() - began)
