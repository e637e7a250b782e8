"""BYOL-A against a plain reference in value and gradient, on one worker and on two."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from two_ranks import on_two_ranks
from unfused import objectives
from unfused.config import Config, override
from unfused.models.clip_encoder import ClipEncoder
from unfused.objectives.byol_a import Config as ByolAConfig
from unfused.objectives.byol_a import distance, normalize_views

CLIPS, BANDS, FRAMES, DIM = 6, 4, 5, 8
SHARES = ([0, 3, 5, 1], [2, 4])
"""The clips of each of two workers."""


class Toy(nn.Module):
    """An encoder of views (B, F, T), with the face of a ClipEncoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(BANDS * FRAMES, DIM), nn.Tanh())
        self.encoder.embedding_dim = DIM

    def encode_normalized(self, view: Tensor) -> SimpleNamespace:
        return SimpleNamespace(clip=self.encoder(view))


def made(**options):
    """An encoder and the objective on it, in eval mode: batch norm is the same on all workers."""
    torch.manual_seed(0)
    encoder = Toy()
    settings = {"projector_hidden": 10, "projector_dim": 6, "momentum": 0.9, **options}
    setting = objectives.Setting(encoder, range(CLIPS), CLIPS, seed=0)
    objective = objectives.build(ByolAConfig(**settings), setting).eval()
    with torch.no_grad():
        for weight in objective.target.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    return encoder, objective


def views() -> Tensor:
    """Two views (2, B, F, T) whose statistics differ."""
    noise = torch.randn(2, CLIPS, BANDS, FRAMES, generator=torch.Generator().manual_seed(3))
    return noise * torch.tensor([1.0, 3.0])[:, None, None, None] - 7


def reference(encoder: Toy, objective: nn.Module, both: Tensor) -> Tensor:
    """The loss a clip and a view at a time, from the paper."""
    mean, std = both.mean(), both.std(correction=0)
    online = nn.Sequential(encoder.encoder, objective.projector, objective.predictor)
    target = nn.Sequential(objective.target["encoder"].encoder, objective.target["projector"])
    total = torch.zeros(())
    for ours, theirs in ((0, 1), (1, 0)):
        for clip in range(both.shape[1]):
            guess = online((both[ours, clip : clip + 1] - mean) / std)[0]
            aim = target((both[theirs, clip : clip + 1] - mean) / std)[0].detach()
            unit = guess / guess.norm(), aim / aim.norm()
            total = total + (unit[0] - unit[1]).square().sum()
    return total / both.shape[1]


def step(clips: list[int]) -> dict[str, Tensor]:
    """Loss and gradient of one worker on its clips."""
    encoder, objective = made()
    mine = views()[:, clips]
    loss = objective(*objective.encode(encoder, *mine), torch.tensor(clips))
    loss.backward()
    return {"loss": loss.detach(), "gradient": gradient(encoder, objective)}


def gradient(encoder: nn.Module, objective: nn.Module) -> Tensor:
    learned = nn.ModuleList([encoder, objective.projector, objective.predictor])
    return torch.cat([p.grad.flatten() for p in learned.parameters()])


def test_value_and_gradient_are_those_of_the_paper():
    found = step(list(range(CLIPS)))
    encoder, objective = made()
    expected = reference(encoder, objective, views())
    expected.backward()
    torch.testing.assert_close(found["loss"], expected.detach())
    theirs = gradient(encoder, objective)
    torch.testing.assert_close(found["gradient"], theirs, atol=1e-6, rtol=1e-4)


def one_rank(rank: int) -> dict[str, Tensor]:
    return step(SHARES[rank])


def test_two_workers_learn_what_one_would(tmp_path):
    first, second = on_two_ranks(one_rank, tmp_path)
    whole = step([*SHARES[0], *SHARES[1]])
    assert torch.equal(first["loss"], second["loss"]), "the value is the same on all workers"
    torch.testing.assert_close(first["loss"], whole["loss"])
    summed = first["gradient"] + second["gradient"]
    assert whole["gradient"].abs().max() > 1e-3
    torch.testing.assert_close(summed, whole["gradient"], atol=1e-6, rtol=1e-4)


def test_the_target_learns_nothing_and_follows_by_a_moving_average():
    encoder, objective = made(momentum=0.75, final_momentum=0.75)
    before = copy.deepcopy(objective.target["encoder"].encoder[1].weight)
    loss = objective(*objective.encode(encoder, *views()), torch.arange(CLIPS))
    loss.backward()
    assert all(weight.grad is None for weight in objective.target.parameters())
    objective.after_step(encoder, 0.5)
    expected = 0.75 * before + 0.25 * encoder.encoder[1].weight
    torch.testing.assert_close(objective.target["encoder"].encoder[1].weight, expected.detach())


@pytest.mark.parametrize(("progress", "kept"), [(0.0, 0.9), (0.5, 0.95), (1.0, 1.0)])
def test_the_momentum_goes_from_the_first_to_the_final_one_by_a_cosine(progress, kept):
    _, objective = made(momentum=0.9, final_momentum=1.0)
    assert objective.target_momentum(progress) == pytest.approx(kept)
    plain = 1 - (1 - 0.9) * (math.cos(math.pi * progress) + 1) / 2
    assert objective.target_momentum(progress) == pytest.approx(plain), "BYOL's own formula"


def test_views_are_normalised_together_after_augmentation():
    first, second = normalize_views(*views())
    both = torch.stack([first, second])
    assert float(both.mean()) == pytest.approx(0, abs=1e-6)
    assert float(both.std(correction=0)) == pytest.approx(1, rel=1e-5)
    assert float(second.std()) > 2 * float(first.std()), "what differs between views stays"
    silent = torch.full((2, 3, 4), -13.8)
    assert torch.isfinite(normalize_views(silent, silent)[0]).all()


def test_the_distance_is_zero_for_one_direction_and_four_for_opposite_ones():
    rows = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    torch.testing.assert_close(distance(rows, 5 * rows), torch.zeros(2))
    torch.testing.assert_close(distance(rows, -rows), torch.full((2,), 4.0))


def test_it_trains_a_real_encoder_and_its_target_follows():
    config = override(Config(), {"pretrain.objective": "byol_a", "encoder.embedding_dim": 16})
    torch.manual_seed(0)
    encoder = ClipEncoder(config.audio, config.teacher, mean=0.0, std=1.0)
    settings = ByolAConfig(projector_hidden=32, projector_dim=8)
    objective = objectives.build(settings, objectives.Setting(encoder, range(8), 8, seed=0))
    learned = [p for p in [*encoder.parameters(), *objective.parameters()] if p.requires_grad]
    optimizer = torch.optim.Adam(learned, 1e-3)
    base = torch.randn(8, 64, 96, generator=torch.Generator().manual_seed(1))
    losses = []
    for number in range(12):
        noise = torch.randn(2, 8, 64, 96, generator=torch.Generator().manual_seed(number))
        loss = objective(*objective.encode(encoder, *(base + 0.3 * noise)), torch.arange(8))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step(encoder, (number + 1) / 12)
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < sum(losses[:3])
    state = objective.state_dict()
    assert any(name.startswith("target.encoder") for name in state), "a checkpoint keeps the target"
