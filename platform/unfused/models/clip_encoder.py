"""Waveform to embedding in one module: what every learned stage trains, saves and loads.

The front end's settings and the normalisation statistics travel with the weights, so that an
encoder can never be fed anything but what it was trained on.

Axes: B clips, W windows of clips, S samples, F mel bands, T frames, D embedding.
"""

from __future__ import annotations

import copy
import json
from typing import Protocol

import torch
from torch import Tensor, nn

from unfused.audio.augment import Augment
from unfused.audio.frontend import LogMel, Normalize
from unfused.audio.samples import Windows
from unfused.config import AudioConfig, AugmentConfig, EncoderConfig
from unfused.config.choices import plugin
from unfused.models import encoders, pooling, weights
from unfused.models.encoders import Features
from unfused.store import Folder

FIRST_KIND = "audio_ntt"
"""What saved settings mean that name no kind: there was but one when they were written."""
PASS_SAMPLES = 2**22
"""That are embedded in one pass: 275 windows of .95 s at 16 kHz."""
PASS_SAMPLES_OF_CPU = 2**20
"""Likewise on a CPU, where more take twice the memory and no less time."""


class Statistics(Protocol):
    """What an encoder takes over from the clips that it learns from (see `data.PartFacts`)."""

    audio: AudioConfig
    log_mel_mean: float | None
    log_mel_std: float | None


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
        encoder: the encoder's; its `kind` says which one.
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
        made = encoders.build(encoder, audio.n_mels)
        self.encoder = made.to(memory_format=torch.channels_last)

    @classmethod
    def for_part(cls, facts: Statistics, encoder: EncoderConfig) -> ClipEncoder:
        """A randomly initialised encoder with the statistics of an ingested part."""
        return cls(facts.audio, encoder, mean=facts.log_mel_mean, std=facts.log_mel_std)

    @property
    def embedding_dim(self) -> int:
        """D."""
        return self.encoder.embedding_dim

    @torch.no_grad()
    def spectrogram(self, samples: Tensor) -> Tensor:
        """int16 samples (B, S) to log-mel (B, F, T) in float32, not normalised."""
        with torch.autocast(samples.device.type, enabled=False):
            return self.log_mel(samples)

    def augmentation(self, config: AugmentConfig, kind: type[Augment] = Augment) -> Augment:
        """Random views of this encoder's log-mel, padded with the training mean."""
        return kind(**config.model_dump(), fill=float(self.normalize.mean))

    def encode(self, spectrogram: Tensor) -> Features:
        """Log-mel (B, F, T), not normalised, to the features of every layer."""
        return self.encoder(self._image(spectrogram))

    def encode_normalized(self, x: Tensor) -> Features:
        """Log-mel (B, F, T) that somebody else has normalised to the features of every layer."""
        return self.encoder(_laid_out(x))

    def _image(self, spectrogram: Tensor) -> Tensor:
        return _laid_out(self.normalize(spectrogram))

    def forward(self, samples: Tensor) -> Features:
        """int16 samples (B, S) to the features of every layer."""
        return self.encode(self.spectrogram(samples))

    def embed(self, windows: Windows[Tensor], layer: str = "last") -> Tensor:
        """Windows of B clips to the mean embedding (B, D) of each clip's."""
        return pooling.mean(self.embed_windows(windows.samples, layer), windows.counts)

    def embed_windows(self, samples: Tensor, layer: str = "last") -> Tensor:
        """int16 samples (W, S) to embeddings (W, D); in eval mode some at a time."""
        most = PASS_SAMPLES_OF_CPU if samples.device.type == "cpu" else PASS_SAMPLES
        at_once = len(samples) if self.training else max(1, most // samples.shape[1])
        return torch.cat([self._embed(some, layer) for some in samples.split(at_once)])

    def _embed(self, samples: Tensor, layer: str) -> Tensor:
        return self.encoder.embed(self._image(self.spectrogram(samples)), layer).float()

    def for_inference(self) -> ClipEncoder:
        """What embeds as this does in eval mode, as cheaply as its encoder can; itself if no other.

        Not for training or saving.
        """
        encoder = self.encoder.for_inference()
        if encoder is self.encoder:
            return self
        made = copy.deepcopy(self).eval()
        made.encoder = encoder
        return made

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
            ValueError: there is no such kind of encoder; a tensor is missing, unexpected or of
                another shape.
        """
        settings = folder.read_json(f"{name}.json")
        kind = plugin(EncoderConfig.room, settings["encoder"].get("kind", FIRST_KIND))
        model = cls(
            AudioConfig.model_validate(settings["audio"]),
            kind.Config.model_validate(settings["encoder"]),
            mean=settings["log_mel_mean"],
            std=settings["log_mel_std"],
        )
        weights.load(model, folder.read(f"{name}.safetensors"))
        return model


def _laid_out(x: Tensor) -> Tensor:
    """(B, F, T) to (B, 1, F, T) as it lies best in memory."""
    return x[:, None].contiguous(memory_format=torch.channels_last)
