"""Encoders of this platform: see `unfused.teachers.kinds.encoder`.

Axes: B clips, S samples, D embedding.
"""

from __future__ import annotations

from torch import Tensor, nn

from unfused.audio.samples import Cut
from unfused.exporting.cutting import Windowed
from unfused.exporting.kinds.linear import EncodedWindows, mean
from unfused.models.clip_encoder import ClipEncoder
from unfused.store import Folder
from unfused.teachers import TeacherFacts


class Embedded(nn.Module):
    """int16 numbers (B, S) to the mean embedding (B, D) of the windows that are no silence.

    Args:
        encoded: the encoder with its windows.
    """

    def __init__(self, encoded: EncodedWindows) -> None:
        super().__init__()
        self.encoded = encoded

    def forward(self, samples: Tensor) -> Tensor:
        embeddings, sound = self.encoded(samples)
        return mean(embeddings, sound[..., None].float())


def module(folder: Folder, facts: TeacherFacts, sample_rate: int) -> Embedded:
    """See `unfused.exporting.teachers`."""
    assert facts.longest is not None
    encoder = ClipEncoder.load(folder, facts.file).eval().for_inference()
    windowed = Windowed(Cut(facts.longest, facts.num_crops))
    return Embedded(EncodedWindows(encoder, windowed, facts.layer))
