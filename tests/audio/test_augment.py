"""Mixing and cropping of log-mels against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from unfused.audio.augment import Augment, Mixup, RandomFilter, RandomResizeCrop, Views
from unfused.distributed import load_rank_state, rank_state

PUBLISHED = {
    "mixup_ratio": 0.4,
    "mixup_bank": 0,
    "canvas_time": 1.5,
    "frequency_scale": (0.6, 1.5),
    "time_scale": (0.6, 1.5),
    "filter_db": 0.0,
    "fill": -4.0,
}
OFF = PUBLISHED | {
    "mixup_ratio": 0.0,
    "canvas_time": 1.0,
    "frequency_scale": (1.0, 1.0),
    "time_scale": (1.0, 1.0),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clips(count: int, seed: int = 0) -> Tensor:
    """Log-mels (B, 8, 12) around -4."""
    return torch.randn(count, 8, 12, generator=seeded(seed)) * 2 - 4


def explain(mixed: np.ndarray, clip: np.ndarray, others: np.ndarray) -> tuple[int, float]:
    """Which other clip, and how much of it, gives exp(mixed) = (1 - a) exp(clip) + a exp(other)."""
    fits = []
    for index, other in enumerate(others):
        difference = np.exp(other) - np.exp(clip)
        change = np.exp(mixed) - np.exp(clip)
        share = float((change * difference).sum() / (difference**2).sum())
        fits.append((float(np.abs(change - share * difference).max()), index, share))
    error, index, share = min(fits)
    assert error < 1e-5
    return index, share


def test_mixing_adds_the_power_of_another_clip_of_the_batch():
    x = clips(12)
    mixed = Mixup(ratio=0.4)(x, seeded(1)).numpy()
    found = []
    for i, clip in enumerate(x.numpy()):
        others = np.delete(x.numpy(), i, axis=0)
        found.append(explain(mixed[i], clip, others))
    shares = np.array([share for _, share in found])
    assert (shares >= 0).all()
    assert (shares <= 0.4).all()
    assert len({round(s, 6) for s in shares}) == 12, "every clip draws its own share"
    assert len({index for index, _ in found}) > 3, "every clip draws its own partner"


def test_shares_are_uniform_up_to_the_ratio():
    x = torch.stack([torch.zeros(1, 1), torch.full((1, 1), -100.0)]).repeat(2000, 1, 1)
    loud = Mixup(ratio=0.4)(x, seeded(0))[::2, 0, 0]
    share = 1 - loud.exp()
    mixed = share[share > 0]  # half of the partners are as loud as the clip
    assert abs(float(mixed.mean()) - 0.2) < 0.02
    assert float(mixed.max()) > 0.39


def test_a_clip_alone_is_not_mixed_with_itself_or_lost():
    x = clips(1)
    torch.testing.assert_close(Mixup(ratio=0.4)(x, seeded(0)), x)
    assert Mixup(ratio=0.4)(x[:0], seeded(0)).shape == (0, 8, 12)


def test_with_a_bank_partners_are_past_clips_as_they_came_in():
    mixup = Mixup(ratio=0.4, bank_size=5)
    past, now = clips(3, seed=1), clips(6, seed=2)
    mixup.remember(past)
    for mixed, clip in zip(mixup(now, seeded(0)).numpy(), now.numpy(), strict=True):
        explain(mixed, clip, past.numpy())


def test_the_bank_forgets_the_oldest_clips_first():
    mixup = Mixup(ratio=0.4, bank_size=4)
    batches = [clips(3, seed=s) for s in range(3)]
    for batch in batches:
        mixup.remember(batch)
    bank = mixup.rank_state()["bank"]
    newest = torch.cat(batches)[-4:]
    assert {tuple(row.flatten().tolist()) for row in bank} == {
        tuple(row.flatten().tolist()) for row in newest
    }
    mixup.remember(clips(9, seed=7))
    assert torch.equal(mixup.rank_state()["bank"].sort(0)[0], clips(9, 7)[-4:].sort(0)[0])


def test_a_resumed_bank_goes_on_as_if_nothing_had_happened():
    settings = PUBLISHED | {"mixup_bank": 5}
    whole, before, after = (Augment(**settings) for _ in range(3))
    for step in range(2):
        whole(clips(3, seed=step), seeded(step))
        before(clips(3, seed=step), seeded(step))
    load_rank_state(after, [rank_state(before)])
    for step in range(2, 5):
        x = clips(3, seed=step)
        assert torch.equal(whole(x, seeded(step)), after(x, seeded(step)))


def test_a_bank_of_another_size_starts_empty():
    old, new = Mixup(bank_size=4), Mixup(bank_size=6)
    old.remember(clips(4))
    new.load_rank_state([old.rank_state()])
    assert new.rank_state() == {}


def test_augmentation_that_is_off_changes_no_bit():
    x = clips(4)
    assert torch.equal(Augment(**OFF)(x), x)


def test_a_patch_as_large_as_the_clip_is_the_clip():
    x = clips(3)
    crop = RandomResizeCrop(
        canvas_time=1.0 + 1e-7, frequency_scale=(1.0, 1.0), time_scale=(1.0, 1.0)
    )
    torch.testing.assert_close(crop(x, seeded(0)), x, atol=1e-4, rtol=0)


def test_the_whole_canvas_is_the_clip_made_narrow_between_margins_of_fill():
    x = clips(2)
    crop = RandomResizeCrop(
        canvas_time=2.0, frequency_scale=(1.0, 1.0), time_scale=(2.0, 2.0), fill=-4.0
    )
    wide = np.pad(x.numpy(), ((0, 0), (0, 0), (6, 6)), constant_values=-4.0)
    expected = (wide[:, :, 0::2] + wide[:, :, 1::2]) / 2
    np.testing.assert_allclose(crop(x, seeded(0)).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("axis", ["time", "frequency"])
def test_half_of_the_clip_is_stretched_to_its_full_size(axis):
    ramp = torch.arange(40.0).expand(50, 1, 40)
    ramp = ramp if axis == "time" else ramp.mT
    scales = {"time_scale": (1.0, 1.0), "frequency_scale": (1.0, 1.0), f"{axis}_scale": (0.5, 0.5)}
    patch = RandomResizeCrop(canvas_time=1.0, **scales, fill=0.0)(ramp.contiguous(), seeded(3))
    lines = patch.flatten(1)[:, 4:-4]
    # A step of the output is half a step of the clip, wherever the patch lies.
    torch.testing.assert_close(lines.diff(dim=1), torch.full_like(lines[:, 1:], 0.5))
    begins = lines[:, 0] - 4 * 0.5 + 0.25
    assert float(begins.min()) >= -1e-3
    assert float(begins.max()) <= 20 + 1e-3
    assert float(begins.max() - begins.min()) > 15


def test_sizes_are_drawn_from_the_scale_and_held_to_the_canvas():
    ramp = torch.arange(64.0).expand(400, 1, 64).contiguous()
    crop = RandomResizeCrop(canvas_time=1.0, frequency_scale=(1.0, 1.0), time_scale=(0.6, 1.5))
    step = crop(ramp, seeded(0))[:, 0, 20:40].diff(dim=1).mean(1)
    assert 0.6 - 1e-3 <= float(step.min()) < 0.65
    whole = float((step > 0.999).float().mean())
    assert abs(whole - 5 / 9) < 0.07
    assert float(step.max()) < 1 + 1e-3


def test_filling_with_the_mean_before_normalising_is_filling_with_zero_after():
    x, mean, std = clips(5), -4.0, 2.5
    before = RandomResizeCrop(fill=mean)(x, seeded(9))
    after = RandomResizeCrop(fill=0.0)((x - mean) / std, seeded(9))
    torch.testing.assert_close((before - mean) / std, after)


def test_every_clip_draws_a_patch_of_its_own():
    x = clips(1).repeat(6, 1, 1)
    patches = RandomResizeCrop()(x, seeded(0))
    assert len({tuple(p.flatten().tolist()) for p in patches}) == 6


def test_one_clip_of_a_batch_does_not_reach_into_another():
    x, changed = clips(5), clips(5)
    changed[2] += 1.0
    crop = RandomResizeCrop()
    one, other = crop(x, seeded(0)), crop(changed, seeded(0))
    same = [torch.equal(a, b) for a, b in zip(one, other, strict=True)]
    assert same == [True, True, False, True, True]


def test_a_seed_fixes_the_views_and_another_changes_them():
    x = clips(4)
    views = Views(**PUBLISHED)
    first, second = views(x, seeded(5))
    again, _ = views(x, seeded(5))
    elsewhere, _ = views(x, seeded(6))
    assert torch.equal(first, again)
    assert not torch.equal(first, elsewhere)
    assert not torch.equal(first, second), "the two views are independent"


def test_without_a_generator_the_seed_of_torch_counts():
    views = Views(**PUBLISHED)
    torch.manual_seed(3)
    first = views(clips(2))
    torch.manual_seed(3)
    again = views(clips(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_both_views_mix_with_the_same_past():
    views = Views(**PUBLISHED | {"mixup_bank": 8} | {k: OFF[k] for k in OFF if "sc" in k})
    views.crop = torch.nn.Identity()  # type: ignore[assignment]
    views.crop.forward = lambda x, generator: x  # type: ignore[method-assign]
    past, now = clips(2, seed=1), clips(2, seed=2)
    views(past, seeded(0))
    for view in views(now, seeded(1)):
        for mixed, clip in zip(view.numpy(), now.numpy(), strict=True):
            explain(mixed, clip, past.numpy())


def test_low_precision_training_does_not_blur_the_views():
    x, augment = clips(4), Augment(**PUBLISHED)
    exact = augment(x, seeded(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augment(x, seeded(0)), exact)
    assert exact.dtype == torch.float32


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mixup_ratio": 1.0}, r"mixing ratio is in \[0, 1\); got 1"),
        ({"canvas_time": 0.9}, "time canvas holds the whole clip.*0.9"),
        ({"time_scale": (1.5, 0.6)}, r"time scale \(1.5, 0.6\).*smaller number first"),
        ({"frequency_scale": (0.0, 1.0)}, r"frequency scale \(0, 1\)"),
    ],
)
def test_impossible_ranges_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Augment(**PUBLISHED | setting)


def test_a_filter_adds_straight_lines_between_gains_in_decibels():
    x = clips(4000)
    gains = (RandomFilter(3.0)(x, seeded(1)) - x) * 10 / np.log(10)
    assert torch.allclose(gains, gains[:, :, :1].expand_as(gains), atol=1e-4)
    assert gains[:, 0].std() == pytest.approx(3.0, abs=0.1)
    assert gains.mean() == pytest.approx(0.0, abs=0.1)
    # Bands 0, 1.75, 3.5, 5.25 and 7 are drawn; 1 lies four sevenths of the way to the second.
    drawn = torch.randn(4000, 5, generator=seeded(1)) * 3
    between = drawn[:, 0] * 3 / 7 + drawn[:, 1] * 4 / 7
    assert torch.allclose(gains[:, 1, 0], between, atol=1e-4)


def test_no_filter_changes_nothing_and_draws_nothing():
    x, generator = clips(3), seeded(2)
    assert RandomFilter()(x, generator) is x
    assert torch.equal(torch.rand(1, generator=generator), torch.rand(1, generator=seeded(2)))
    with pytest.raises(ValueError, match="0 dB or more; got -1"):
        RandomFilter(-1.0)


def test_a_view_is_filtered_too():
    x = clips(3)
    whole = Augment(**OFF | {"filter_db": 6.0})(x, seeded(4))
    assert torch.equal(whole, RandomFilter(6.0)(x, seeded(4)))
