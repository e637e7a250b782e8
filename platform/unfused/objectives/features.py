"""Features that cost nothing as targets: the encoder learns what statistics and cepstra say.

Every clip's features (`teachers.also`), each of zero mean and unit variance over the clips, are
regressed from a random window of it, as the workers of PASE do (arXiv 1904.03416) and, with MFCC
clusters in their place, the first iteration of HuBERT (arXiv 2106.07447). With few clips this
carries further than a contrast between views, which has to be told what not to hear.

Axes: B clips, N of the corpus, D embedding, Q projection, P features of one kind.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from unfused.config import ProjectorConfig


class Config(ProjectorConfig):
    kind: Literal["features"] = "features"
    """Pre-training objective: the regression of the features in `teachers.also`."""
    hears_features: ClassVar[bool] = True


from torch import Tensor, nn
from torch.nn.functional import smooth_l1_loss

from unfused.distributed import global_count, sum_over_ranks
from unfused.models.heads import Projector
from unfused.objectives.protocol import Objective, Setting


class Regression(Objective):
    """A projector, a linear layer for each kind of features, and how far off these are.

    Args:
        projector: D -> Q.
        width: Q.
        features: (N, P) of all clips, for each kind.

    Raises:
        ValueError: there are none.
    """

    num_views = 1

    def __init__(self, projector: nn.Module, width: int, features: tuple[Tensor, ...]) -> None:
        super().__init__()
        if not features:
            raise ValueError("There are no features to regress; name some in teachers.also.")
        self._targets = [_standard(rows).half() for rows in features]
        self.projector = projector
        self.layers = nn.ModuleList(nn.Linear(width, rows.shape[1]) for rows in features)

    def forward(self, *rows: Tensor) -> Tensor:
        """Embeddings (B, D) and the clips' indices (B,) to a scalar: Huber's loss, in variances,
        averaged over features, kinds and clips."""
        embedding, clip = rows
        projected = self.projector(embedding)
        found = embedding.new_zeros(())
        for layer, targets in zip(self.layers, self._targets, strict=True):
            wanted = targets[clip.cpu()].to(embedding)
            off = smooth_l1_loss(layer(projected).float(), wanted, reduction="none")
            found = found + off.mean(1).sum() / len(self.layers)
        return sum_over_ranks(found / global_count(len(clip), clip.device))


def _standard(rows: Tensor) -> Tensor:
    """Columns of zero mean and unit variance; what does not move at all is zero."""
    rows = rows.float()
    return (rows - rows.mean(0)) / rows.std(0, correction=0).clamp_min(1e-6)


def build(config: Config, setting: Setting) -> Regression:
    """See `unfused.objectives.build`."""
    widths = config.projector_hidden, config.projector_dim
    projector = Projector(setting.embedding_dim, *widths)
    return Regression(projector, config.projector_dim, setting.features)
