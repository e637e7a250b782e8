"""Encoders with a linear head, one head for every draw of the labels.

Axes: B clips, C windows of a clip, S samples, R repeated draws, N classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unfused.models.classifier import ClipClassifier
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.heads import LinearClassifier
from unfused.scorers.protocol import ScorerFacts
from unfused.store import Folder


class LinearScorer:
    """Draws that share an encoder (linear fine-tuning) share its embeddings.

    Args:
        draws: encoders, each with the heads of the draws that share it, in the order of draws.
    """

    def __init__(self, draws: Sequence[tuple[ClipEncoder, Sequence[LinearClassifier]]]) -> None:
        self.draws = draws

    def to(self, device: torch.device) -> LinearScorer:
        """The same modules, moved."""
        return LinearScorer(
            [(encoder.to(device), [h.to(device) for h in heads]) for encoder, heads in self.draws]
        )

    @torch.inference_mode()
    def scores(self, clips: Tensor) -> Tensor:
        """int16 windows (B, C, S) -> scores (R, B, N)."""
        found = []
        for encoder, heads in self.draws:
            embedding = encoder.embed(clips)
            found += [head(embedding) for head in heads]
        return torch.stack(found)


def load(folder: Folder, facts: ScorerFacts) -> LinearScorer:
    """See `unfused.scorers.load`."""
    groups = ClipClassifier.load_all(folder, facts.num_repeats)
    return LinearScorer(
        [(group[0].encoder.eval().for_inference(), [one.head for one in group]) for group in groups]
    )


def files(folder: Folder, repeat: int) -> list[str]:
    """See `unfused.scorers.files`."""
    head = f"head-{repeat:02d}"
    encoder = folder.read_json(f"{head}.json")["encoder"]
    return [f"{name}.{suffix}" for name in (head, encoder) for suffix in ("json", "safetensors")]
