"""Pre-training objectives against plain formulas, and two workers against one."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from two_ranks import on_two_ranks
from unfused import objectives
from unfused.config import Config, ConfigError, override
from unfused.config.choices import kinds, plugin
from unfused.distributed import gather_rows, global_count, sum_over_ranks
from unfused.objectives.barlow_twins import barlow_twins
from unfused.objectives.nt_xent import nt_xent

OPTIONS = {
    "projector_hidden": 12,
    "projector_dim": 6,
    "temperature": 0.3,
    "num_prototypes": 4,
    "kmeans_iterations": 5,
    "redundancy_weight": 0.01,
}
ON_EMBEDDINGS = ("barlow_twins", "decar_v2", "nt_xent")
"""Objectives that take the clip vectors of two views alone."""
NUM_CLIPS = 16
WHOLE = range(NUM_CLIPS)


def build(name: str, rows: range = WHOLE, num_clips: int = NUM_CLIPS, **options):
    """An objective on 8-dimensional embeddings; options are not held against their ranges."""
    kind = plugin("objectives", name).Config
    values = {key: value for key, value in (OPTIONS | options).items() if key in kind.model_fields}
    encoder = SimpleNamespace(encoder=SimpleNamespace(embedding_dim=8))
    setting = objectives.Setting(encoder, rows, num_clips, seed=0)
    return objectives.build(kind.model_construct(**values), setting)


def views(batch: int = 5, dim: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    first, second = torch.randn(2, batch, dim, generator=generator).double()
    return first.requires_grad_(), second.requires_grad_()


def naive_nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Equation 1 of SimCLR, a pair at a time."""
    rows = [*first, *second]
    half = len(first)

    def similarity(i: int, j: int) -> Tensor:
        return rows[i] @ rows[j] / rows[i].norm() / rows[j].norm() / temperature

    total = torch.zeros((), dtype=torch.float64)
    for i in range(2 * half):
        others = sum(similarity(i, j).exp() for j in range(2 * half) if j != i)
        total = total - (similarity(i, (i + half) % (2 * half)).exp() / others).log()
    return total / (2 * half)


def naive_barlow_twins(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """Equations 1 and 2 of Barlow Twins, a pair of columns at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for i, j in itertools.product(range(first.shape[1]), repeat=2):
        a, b = (
            (c - c.mean()) / (c.var(correction=0) + 1e-5).sqrt()
            for c in (first[:, i], second[:, j])
        )
        correlation = (a * b).mean()
        total = total + ((1 - correlation) ** 2 if i == j else weight * correlation**2)
    return total


@pytest.mark.parametrize(
    ("loss", "naive", "knob"),
    [(nt_xent, naive_nt_xent, 0.2), (barlow_twins, naive_barlow_twins, 0.05)],
    ids=["nt_xent", "barlow_twins"],
)
def test_value_and_gradient_are_those_of_the_paper(loss, naive, knob):
    ours, theirs = views(), views()
    value, expected = loss(*ours, knob), naive(*theirs, knob)
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_nt_xent_of_indistinguishable_clips_is_the_log_of_the_number_of_others():
    same = torch.ones(4, 3)
    assert float(nt_xent(same, same, 0.1)) == pytest.approx(math.log(7))
    assert float(nt_xent(same[:0], same[:0], 0.1)) == 0


def test_barlow_twins_is_zero_for_equal_views_with_decorrelated_columns():
    columns = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert float(barlow_twins(columns * 5 + 3, columns, 0.5)) == pytest.approx(0, abs=1e-8)
    same = columns[:, :1].repeat(1, 2)
    assert float(barlow_twins(same, same, 0.5)) == pytest.approx(2 * 0.5, rel=1e-4)


@pytest.mark.parametrize("name", ["nt_xent", "barlow_twins"])
def test_low_precision_training_computes_the_loss_in_full(name):
    objective = build(name).eval()
    first, second = (torch.randn(6, 8, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    objective.projector = nn.Identity()
    exact = objective(first, second, torch.arange(6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(objective(first, second, torch.arange(6)), exact)


def test_low_precision_training_computes_decars_loss_in_full():
    objective = build("decar_v2", projector_dim=8)
    objective.projector = nn.Identity()
    rows = torch.randn(2, NUM_CLIPS, 8, generator=torch.Generator().manual_seed(0))
    objective.observe(rows[0], torch.arange(NUM_CLIPS))
    objective.start_epoch(0)
    exact = objective(*rows, torch.arange(NUM_CLIPS))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(objective(*rows, torch.arange(NUM_CLIPS)), exact)


def test_an_unknown_objective_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"no 'byol_z'; choose one of .*barlow_twins.*decar_v2"):
        plugin("objectives", "byol_z")


def test_every_objective_says_what_it_is_called():
    for kind in kinds("objectives"):
        assert plugin("objectives", kind).Config().kind == kind


def test_more_prototypes_than_clips_are_refused_before_anything_is_trained():
    config = plugin("objectives", "decar_v2").Config(num_prototypes=64)
    config.check(64)
    with pytest.raises(ConfigError, match=r"num_prototypes=64 is more than the 10.*to 2 or less"):
        config.check(10)
    plugin("objectives", "nt_xent").Config().check(2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nt_xent", {"temperature": 0.0}, "contrastive temperature must be above 0"),
        ("barlow_twins", {"redundancy_weight": -1.0}, "redundancy weight is 0 or more; got -1"),
        ("decar_v2", {"temperature": 0.0}, "prototype temperature must be above 0"),
        ("decar_v2", {"num_prototypes": 17}, "17 prototypes.*there are 16; lower num_prototypes"),
    ],
)
def test_knobs_out_of_range_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)


def filled_decar(rows: range = WHOLE, **options):
    """DECAR-v2 in eval mode that has seen its clips once."""
    torch.manual_seed(0)
    objective = build("decar_v2", rows, **options).eval()
    embeddings = torch.randn(NUM_CLIPS, 8, generator=torch.Generator().manual_seed(4))
    objective.observe(embeddings[rows.start : rows.stop], torch.arange(NUM_CLIPS)[rows])
    return objective


def decar(**options):
    """`filled_decar` and the metrics of its first clusters."""
    objective = filled_decar(**options)
    return objective, objective.start_epoch(0)


def test_decar_is_the_cross_entropy_of_the_second_view_against_the_clusters_of_the_bank():
    objective, _ = decar()
    labels, prototypes = objective.labels.clone(), objective.prototypes.clone()
    clip = torch.tensor([3, 11, 0])
    first, second = (torch.randn(3, 8) for _ in range(2))
    found = float(objective(first, second, clip).detach())
    expected = 0.0
    for row, index in zip(second, clip.tolist(), strict=True):
        projected = objective.projector(row[None])[0].detach().numpy()
        unit = projected / np.linalg.norm(projected)
        scores = prototypes.numpy() @ unit / OPTIONS["temperature"]
        expected -= (scores - np.log(np.exp(scores).sum()))[labels[index]] / 3
    assert found == pytest.approx(expected, rel=1e-5)


def test_decar_remembers_the_first_view_and_learns_from_the_second():
    objective, _ = decar()
    before = objective.bank.clone()
    clip = torch.tensor([3, 11])
    first, second = (torch.randn(2, 8).requires_grad_() for _ in range(2))
    objective(first, second, clip).backward()
    assert first.grad is None
    assert second.grad.abs().sum() > 0
    projected = objective.projector(first).detach()
    unit = projected / projected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(objective.bank[clip], unit)
    others = [i for i in range(NUM_CLIPS) if i not in (3, 11)]
    assert torch.equal(objective.bank[others], before[others])


def test_decar_gives_the_first_view_no_gradient_and_the_second_one_its_own():
    encoder = nn.Linear(4, 8)
    views = torch.randn(2, 3, 4)
    wrapped = SimpleNamespace(encode=lambda view: SimpleNamespace(clip=encoder(view)))
    first, second = build("decar_v2").encode(wrapped, *views)
    assert not first.requires_grad and second.requires_grad
    torch.testing.assert_close(first, encoder(views[0]))
    symmetric = build("nt_xent").encode(wrapped, *views)
    assert all(view.requires_grad for view in symmetric)


def test_decar_prototypes_are_the_unit_means_of_their_clips():
    objective, metrics = decar(kmeans_iterations=50)
    for index, prototype in enumerate(objective.prototypes):
        mean = objective.bank[objective.labels == index].mean(0)
        torch.testing.assert_close(prototype, mean / mean.norm())
    assert metrics["num_nonempty"] == 4
    cosines = (objective.bank * objective.prototypes[objective.labels]).sum(1)
    assert metrics["similarity"] == pytest.approx(float(cosines.mean()), rel=1e-5)


def test_decar_asks_for_its_clusters_before_the_first_step():
    with pytest.raises(ValueError, match="call start_epoch"):
        build("decar_v2")(torch.zeros(1, 8), torch.zeros(1, 8), torch.zeros(1).long())


def test_a_bank_is_restored_at_another_number_of_workers():
    shares = [filled_decar(rows).rank_state() for rows in (range(5), range(5, 16))]
    whole, metrics = decar()
    for rows in (range(16), range(3), range(3, 16)):
        restored = build("decar_v2", rows)
        restored.load_rank_state(shares)
        torch.testing.assert_close(restored.bank, whole.bank[rows.start : rows.stop])
    restored = build("decar_v2")
    restored.load_rank_state(shares)
    assert restored.start_epoch(0) == pytest.approx(metrics)
    assert torch.equal(restored.labels, whole.labels)


def test_a_bank_of_another_corpus_is_refused():
    with pytest.raises(ValueError, match="holds 5 clips and there are 16"):
        build("decar_v2").load_rank_state([build("decar_v2", range(5)).rank_state()])


def test_decar_finds_the_classes_that_its_views_share():
    from sklearn.metrics import normalized_mutual_info_score  # slow to import in every rank

    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(120) % 4
    shared = 2.0 * nn.functional.one_hot(truth, 4).float()

    def view() -> Tensor:
        """Four dimensions of class and eight of noise that is different in every view."""
        noise = torch.randn(120, 8, generator=generator)
        return torch.cat([shared + 0.3 * torch.randn(120, 4, generator=generator), noise], 1)

    torch.manual_seed(0)
    encoder = nn.Linear(12, 8)
    objective = build("decar_v2", range(120), 120, projector_hidden=32, num_prototypes=4)
    optimizer = torch.optim.Adam([*encoder.parameters(), *objective.parameters()], 1e-2)
    objective.observe(encoder(view()), torch.arange(120))
    agreement = []
    for epoch in range(15):
        objective.start_epoch(epoch)
        agreement.append(normalized_mutual_info_score(truth, objective.labels))
        for rows in torch.randperm(120, generator=generator).split(40):
            with torch.no_grad():
                first = encoder(view()[rows])
            loss = objective(first, encoder(view()[rows]), rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert agreement[0] < 0.4
    assert np.mean(agreement[-3:]) > 0.7


def test_without_other_workers_gathering_is_the_identity():
    rows = torch.randn(3, 2).requires_grad_()
    assert gather_rows(rows) is rows
    assert float(sum_over_ranks(torch.tensor(2.5))) == 2.5
    assert float(global_count(7)) == 7
    assert float(global_count(0)) == 1, "it divides"


SPLITS = {"uneven": 5, "one worker without clips": 16}
"""Clips of the first of two workers, of 16."""
BATCHES = {"uneven": ([1, 4, 2], [15, 7, 9, 12, 5]), "one worker without clips": ([3, 0, 8], [])}


def one_step(name: str, rows: range, clips: list[int]) -> dict[str, Tensor]:
    """Loss, gradients and prototypes of one step of one worker on its clips."""
    torch.manual_seed(0)
    encoder = nn.Linear(10, 8)
    objective = build(name, rows).eval()
    data = torch.randn(3, NUM_CLIPS, 10, generator=torch.Generator().manual_seed(2))
    if objective.needs_initial_pass:
        objective.observe(encoder(data[2][rows.start : rows.stop]), torch.arange(NUM_CLIPS)[rows])
    metrics = objective.start_epoch(0)
    clip = torch.tensor(clips, dtype=torch.long)
    first, second = encoder(data[0][clip]), encoder(data[1][clip])
    loss = objective(first.detach() if name == "decar_v2" else first, second, clip)
    loss.backward()
    parameters = [*encoder.parameters(), *objective.parameters()]
    return {
        "loss": loss.detach(),
        "gradient": torch.cat([p.grad.flatten() for p in parameters]),
        "metrics": torch.tensor(list(metrics.values())),
        "bank": objective.rank_state().get("bank", torch.zeros(0, 6)),
    }


def all_steps(rank: int) -> dict[str, dict[str, Tensor]]:
    """Every objective and split on one of two ranks, and what gathering does to rows."""
    results = {}
    for case, split in SPLITS.items():
        rows = range(split) if rank == 0 else range(split, NUM_CLIPS)
        for name in ON_EMBEDDINGS:
            results[f"{name} {case}"] = one_step(name, rows, BATCHES[case][rank])
    mine = torch.full((rank * 3, 2), float(rank)).requires_grad_()
    gathered = gather_rows(mine)
    (gathered.sum() * 2).backward()
    results["gather"] = {
        "rows": gathered.detach(),
        "gradient": mine.grad,
        "count": global_count(rank * 3),
    }
    return results


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory) -> list[dict[str, dict[str, Tensor]]]:
    return on_two_ranks(all_steps, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", list(SPLITS))
@pytest.mark.parametrize("name", ON_EMBEDDINGS)
def test_two_workers_learn_what_one_would(name, case, two_ranks):
    first, second = (results[f"{name} {case}"] for results in two_ranks)
    whole = one_step(name, WHOLE, [*BATCHES[case][0], *BATCHES[case][1]])
    assert torch.equal(first["loss"], second["loss"]), "the value is the same on all workers"
    torch.testing.assert_close(first["loss"], whole["loss"])
    assert whole["gradient"].abs().max() > 1e-3
    summed = first["gradient"] + second["gradient"]
    torch.testing.assert_close(summed, whole["gradient"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.cat([first["bank"], second["bank"]]), whole["bank"])
    torch.testing.assert_close(first["metrics"], whole["metrics"])
    assert torch.equal(first["metrics"], second["metrics"])


def test_gathered_rows_are_everyones_and_their_gradient_is_ones_own(two_ranks):
    first, second = (results["gather"] for results in two_ranks)
    assert torch.equal(first["rows"], torch.ones(3, 2))
    assert torch.equal(second["rows"], first["rows"])
    assert torch.equal(second["gradient"], torch.full((3, 2), 2.0))
    assert first["gradient"].shape == (0, 2)
    assert (float(first["count"]), float(second["count"])) == (3, 3)


def test_features_are_regressed_each_kind_alike_whatever_its_scale():
    generator = torch.Generator().manual_seed(0)
    narrow, wide = torch.randn(16, 3, generator=generator), torch.randn(16, 40, generator=generator)
    encoder = SimpleNamespace(encoder=SimpleNamespace(embedding_dim=8))
    rows, clip = torch.randn(5, 8, generator=generator), torch.tensor([3, 0, 15, 7, 7])

    def loss(*features):
        setting = objectives.Setting(encoder, WHOLE, NUM_CLIPS, seed=0, features=features)
        torch.manual_seed(0)
        objective = objectives.build(plugin("objectives", "features").Config(), setting)
        return objective(rows, clip), objective

    value, objective = loss(narrow, wide)
    scaled, _ = loss(100 * narrow + 7, wide)
    torch.testing.assert_close(value, scaled, atol=2e-3, rtol=0)
    expected = 0.0
    for layer, table in zip(objective.layers, (narrow, wide), strict=True):
        target = ((table - table.mean(0)) / table.std(0, correction=0))[clip]
        found = layer(objective.projector(rows))
        expected = expected + nn.functional.smooth_l1_loss(found, target) / 2
    torch.testing.assert_close(value, expected, atol=2e-3, rtol=0)
    assert objective.num_views == 1
    with pytest.raises(ValueError, match=r"name some in teachers\.also"):
        loss()


def test_features_that_are_none_are_refused_before_anything_is_trained():
    with pytest.raises(ConfigError, match=r"features learns the features in teachers\.also"):
        override(Config(), {"teachers.also": "[]"})
    override(Config(), {"teachers.also": "[]", "pretrain.objective": "nt_xent"})
