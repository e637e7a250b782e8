"""A small encoder and what it takes, for tests of whatever stands on an encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from unfused.models.encoders.audio_ntt import AudioNTT


def encoder(seed: int = 0) -> AudioNTT:
    """A small encoder with batch-norm statistics that are not the trivial ones."""
    torch.manual_seed(seed)
    model = AudioNTT(n_mels=16, embedding_dim=24)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return model.eval()


def spectrogram(batch: int = 2, frames: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(batch, 1, 16, frames, generator=generator)
