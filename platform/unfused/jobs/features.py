"""What a student matches of its teachers: their embeddings, in few numbers.

Axes: N clips, B clips of a batch, D embedding of the student, P components of a teacher's.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from unfused import clustering, data
from unfused.store import Folder

NUM_COMPONENTS = 128
"""Principal components that are matched, of embeddings that have more."""


def principal(folder: Folder) -> Tensor:
    """Embeddings in their principal components: (N, P) float16, of mean length 1."""
    with warnings.catch_warnings():
        # A teacher may have fewer.
        warnings.simplefilter("ignore", UserWarning)
        basis = clustering.Whitening.fit(
            data.moments(folder), num_components=NUM_COMPONENTS, whiten=False, normalize=False
        )
    rows = np.concatenate([basis.transform(v) for _, v in data.read_embeddings(folder)])
    return torch.from_numpy(rows / np.linalg.norm(rows, axis=1).mean()).half()


class Matching(nn.Module):
    """A projector for each teacher, and how far what it makes of a student is from the teacher.

    Args:
        width: D.
        matched: the components (N, P) of every teacher, each with its weight.
    """

    def __init__(self, width: int, matched: Sequence[tuple[Tensor, float]]) -> None:
        super().__init__()
        self.matched = matched
        self.projectors = nn.ModuleList(nn.Linear(width, rows.shape[1]) for rows, _ in matched)

    def forward(
        self,
        features: Tensor,
        clip: Tensor,
        share: Tensor | None = None,
        partner: Tensor | None = None,
    ) -> Tensor:
        """The weighted sum over teachers of 1 - cos, for every clip: (B,).

        Args:
            features: (B, D) of the student.
            clip: (B,) which clips these are, on CPU.
            share: (B,) how much of another clip is mixed into each; none is not at all.
            partner: (B,) its place in the batch.
        """
        loss = features.new_zeros(len(features), dtype=torch.float32)
        for projector, (rows, weight) in zip(self.projectors, self.matched, strict=True):
            wanted = rows[clip].float()
            if share is not None:
                wanted = torch.lerp(wanted, wanted[partner], share[:, None])
            same = cosine_similarity(projector(features).float(), wanted.to(loss.device), dim=1)
            loss = loss + weight * (1 - same)
        return loss
