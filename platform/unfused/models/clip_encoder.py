"""Waveform to embedding in one module: what every learned stage trains, saves and loads.

The front end's settings and the normalisation statistics travel with the weights, so that an
encoder can never be fed anything but what it was trained on.

Axes: B clips, C windows of a clip, S samples, F mel bands, T frames, D embedding.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from unfused.audio.augment import Augment
from unfused.audio.frontend import LogMel, Normalize
from unfused.config import AudioConfig, AugmentConfig, EncoderConfig
from unfused.models import weights
from unfused.models.encoder import AudioNTT, Features
from unfused.store import Folder


def log_mel(audio: AudioConfig) -> LogMel:
    """The front end that `audio` describes."""
    return LogMel(
        sample_rate=audio.sample_rate,
        n_fft=audio.n_fft,
        hop_length=audio.hop_length,
        n_mels=audio.n_mels,
        f_min=audio.f_min,
        f_max=audio.f_max,
    )


class ClipEncoder(nn.Module):
    """Log-mel front end, normalisation and encoder.

    Args:
        audio: the front end's settings.
        encoder: the encoder's.
        mean: of log-mel values over the training clips.
        std: likewise.
    """

    def __init__(
        self, audio: AudioConfig, encoder: EncoderConfig, *, mean: float, std: float
    ) -> None:
        super().__init__()
        self.audio, self.settings = audio, encoder
        self.log_mel = log_mel(audio)
        self.normalize = Normalize(mean, std)
        self.encoder = AudioNTT(
            n_mels=audio.n_mels, embedding_dim=encoder.embedding_dim, dropout=encoder.dropout
        ).to(memory_format=torch.channels_last)

    @classmethod
    def for_part(cls, facts: Any, encoder: EncoderConfig) -> ClipEncoder:
        """A randomly initialised encoder with the statistics of an ingested part."""
        audio = AudioConfig.model_validate(facts["audio"])
        return cls(audio, encoder, mean=facts["log_mel_mean"], std=facts["log_mel_std"])

    @torch.no_grad()
    def spectrogram(self, samples: Tensor) -> Tensor:
        """int16 samples (B, S) to log-mel (B, F, T) in float32, not normalised."""
        with torch.autocast(samples.device.type, enabled=False):
            return self.log_mel(samples)

    def augmentation(self, config: AugmentConfig, kind: type[Augment] = Augment) -> Augment:
        """Random views of this encoder's log-mel, padded with the training mean."""
        return kind(**config.model_dump(), fill=float(self.normalize.mean))

    def encode(self, spectrogram: Tensor) -> Features:
        """Log-mel (B, F, T) to the features of every layer."""
        return self.encoder(self._image(spectrogram))

    def _image(self, spectrogram: Tensor) -> Tensor:
        image = self.normalize(spectrogram)[:, None]
        return image.contiguous(memory_format=torch.channels_last)

    def forward(self, samples: Tensor) -> Features:
        """int16 samples (B, S) to the features of every layer."""
        return self.encode(self.spectrogram(samples))

    def embed(self, windows: Tensor, layer: str = "last") -> Tensor:
        """int16 windows (B, C, S) to the mean embedding (B, D) of their clip."""
        batch, crops, samples = windows.shape
        spectrogram = self.spectrogram(windows.reshape(batch * crops, samples))
        embedding = self.encoder.embed(self._image(spectrogram), layer).float()
        return embedding.reshape(batch, crops, -1).mean(1)

    def save(self, folder: Folder, name: str = "encoder") -> None:
        """Write `name`.safetensors and `name`.json."""
        settings = {
            "audio": self.audio.model_dump(mode="json"),
            "encoder": self.settings.model_dump(mode="json"),
            "log_mel_mean": float(self.normalize.mean),
            "log_mel_std": float(self.normalize.std),
        }
        folder.write(f"{name}.json", json.dumps(settings, indent=2).encode())
        folder.write(f"{name}.safetensors", weights.save(self))

    @classmethod
    def load(cls, folder: Folder, name: str = "encoder") -> ClipEncoder:
        """Read what `save` wrote.

        Raises:
            ValueError: a tensor is missing, unexpected or of another shape.
        """
        settings = folder.read_json(f"{name}.json")
        model = cls(
            AudioConfig.model_validate(settings["audio"]),
            EncoderConfig.model_validate(settings["encoder"]),
            mean=settings["log_mel_mean"],
            std=settings["log_mel_std"],
        )
        weights.load(model, folder.read(f"{name}.safetensors"))
        return model
