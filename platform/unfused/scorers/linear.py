"""Encoders with a linear head, one head for every draw of the labels.

Axes: B clips, W windows of clips, S samples, R repeated draws, N classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unfused.audio.samples import Windows
from unfused.models.classifier import ClipClassifier
from unfused.models.clip_encoder import ClipEncoder
from unfused.models.heads import LinearClassifier
from unfused.models.pooling import POOLINGS
from unfused.scorers.protocol import ScorerFacts
from unfused.store import Folder


class LinearScorer:
    """Draws that share an encoder (linear fine-tuning) share its embeddings.

    Args:
        draws: encoders, each with the heads of the draws that share it, in the order of draws.
        pooling: how the scores of a clip's windows become the clip's, one of `POOLINGS`.
    """

    def __init__(
        self, draws: Sequence[tuple[ClipEncoder, Sequence[LinearClassifier]]], pooling: str
    ) -> None:
        self.draws, self.pooling = draws, pooling

    def to(self, device: torch.device) -> LinearScorer:
        """The same modules, moved."""
        moved = [(encoder.to(device), [h.to(device) for h in hs]) for encoder, hs in self.draws]
        return LinearScorer(moved, self.pooling)

    @torch.inference_mode()
    def scores(self, clips: Windows[Tensor]) -> Tensor:
        """Windows of B clips -> scores (R, B, N)."""
        pool, found = POOLINGS[self.pooling], []
        for encoder, heads in self.draws:
            embedding = encoder.embed_windows(clips.samples)
            found += [pool(head(embedding), clips.counts) for head in heads]
        return torch.stack(found)

    @torch.inference_mode()
    def embeddings(self, clips: Windows[Tensor]) -> dict[str, Tensor]:
        """The encoder's, its mean over the windows of each clip."""
        return {"embedding": self.draws[0][0].embed(clips)}


def load(folder: Folder, facts: ScorerFacts) -> LinearScorer:
    """See `unfused.scorers.load`."""
    if facts.cut is None:
        raise ValueError("an encoder takes windows, and nothing says how long they are")
    groups = ClipClassifier.load_all(folder, facts.num_repeats)
    draws = [
        (group[0].encoder.eval().for_inference(), [one.head for one in group]) for group in groups
    ]
    return LinearScorer(draws, facts.pooling)


def files(folder: Folder, repeat: int) -> list[str]:
    """See `unfused.scorers.files`."""
    head = f"head-{repeat:02d}"
    encoder = folder.read_json(f"{head}.json")["encoder"]
    return [f"{name}.{suffix}" for name in (head, encoder) for suffix in ("json", "safetensors")]
