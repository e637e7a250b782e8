"""The final product: waveform windows in, class scores out.

Axes: B clips, W windows of clips, S samples, D embedding, N classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unfused.audio.samples import Windows
from unfused.models import weights
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.heads import LinearClassifier
from unfused.models.pooling import POOLINGS
from unfused.store import Folder


class ClipClassifier(nn.Module):
    """An encoder and a linear head over named classes.

    Args:
        encoder: gives the clip vector.
        head: D -> N.
        classes: the label map, in the order of the head's outputs.
    """

    def __init__(
        self, encoder: ClipEncoder, head: LinearClassifier, classes: Sequence[str]
    ) -> None:
        super().__init__()
        self.encoder, self.head, self.classes = encoder, head, tuple(classes)

    def forward(self, samples: Tensor) -> Tensor:
        """int16 windows (W, S) -> the scores of each (W, N)."""
        return self.head(self.encoder.embed_windows(samples))

    @staticmethod
    def save_head(
        folder: Folder, repeat: int, head: LinearClassifier, classes: Sequence[str], encoder: str
    ) -> None:
        """Write the head of one draw and the name of the encoder that it sits on."""
        settings = {"classes": list(classes), "encoder": encoder}
        folder.write(f"head-{repeat:02d}.json", json.dumps(settings, indent=2).encode())
        folder.write(f"head-{repeat:02d}.safetensors", weights.save(head))

    @classmethod
    def load(cls, folder: Folder, repeat: int = 0) -> ClipClassifier:
        """The classifier of one draw of the labels."""
        settings = folder.read_json(f"head-{repeat:02d}.json")
        return cls._load(folder, repeat, settings, ClipEncoder.load(folder, settings["encoder"]))

    @classmethod
    def _load(
        cls, folder: Folder, repeat: int, settings: Mapping[str, Any], encoder: ClipEncoder
    ) -> ClipClassifier:
        head = LinearClassifier(encoder.embedding_dim, len(settings["classes"]))
        weights.load(head, folder.read(f"head-{repeat:02d}.safetensors"))
        return cls(encoder, head, settings["classes"])

    @classmethod
    def load_all(cls, folder: Folder, num_repeats: int) -> list[list[ClipClassifier]]:
        """Every draw's classifier in order, those that share an encoder in one list."""
        groups: dict[str, list[ClipClassifier]] = {}
        for repeat in range(num_repeats):
            settings = folder.read_json(f"head-{repeat:02d}.json")
            group = groups.setdefault(settings["encoder"], [])
            encoder = group[0].encoder if group else ClipEncoder.load(folder, settings["encoder"])
            group.append(cls._load(folder, repeat, settings, encoder))
        return list(groups.values())

    @torch.inference_mode()
    def predict(self, windows: Windows[Tensor], pooling: str = "mean") -> Tensor:
        """Windows of B clips -> class probabilities (B, N)."""
        return POOLINGS[pooling](self.eval()(windows.samples), windows.counts).softmax(1)
