"""Random changes to log-mel spectrograms that keep what a clip is about, after BYOL-A.

The rule of this room: every clip of a batch draws for itself, all draws come from a CPU generator
(so that a seed means the same on every device), and the work is batched on the input's device.

Everything here maps log-mel before normalisation to the same. Mixing needs that (it adds powers);
the resize crop pads with `fill`, the training mean, so that normalising afterwards gives exactly
what padding with zeros after normalising would. The model thus normalises once, in one place.

Axes: B clips, F mel bands, T frames, M clips in the mixing bank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, interpolate

from unfused import distributed
from unfused.distributed import State

LOG_POWER_PER_DB = math.log(10) / 10
"""Log-mel is the natural logarithm of powers."""


class Mixup(distributed.PerRank):
    """Log-mix-exp with another clip in the background (arXiv 2103.06695, section III-B1).

    log((1 - a) exp(x) + a exp(partner)), a ~ U(0, ratio): the powers of the two clips add. The
    partner is a past clip from a ring buffer, where there is one and it holds any, else another
    clip of the batch.

    Args:
        ratio: largest share of the partner, in [0, 1); 0 is off.
        bank_size: past clips kept (2048 as published); 0 mixes within the batch.

    Raises:
        ValueError: `ratio` is outside [0, 1).
    """

    def __init__(self, ratio: float = 0.4, bank_size: int = 0) -> None:
        super().__init__()
        if not 0 <= ratio < 1:
            raise ValueError(f"The mixing ratio is in [0, 1); got {ratio:g}.")
        self.ratio, self.bank_size = ratio, bank_size
        # Neither is a buffer: DistributedDataParallel would overwrite every worker's bank with the
        # first one's at each step. They are saved through `rank_state`.
        self._bank: Tensor | None = None
        self._num_seen = 0

    def forward(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Mix log-mel (B, F, T); a lone clip without a bank stays as it is."""
        if self.ratio == 0:
            return x
        draws = torch.rand(2, len(x), generator=generator).to(x.device)
        share = (self.ratio * draws[0])[:, None, None]
        return torch.lerp(x.exp(), self._partners(x, draws[1]).exp(), share).log_()

    def _partners(self, x: Tensor, draw: Tensor) -> Tensor:
        """A partner (B, F, T) for every clip, chosen by `draw` (B,) in [0, 1)."""
        held = min(self._num_seen, self.bank_size)
        if self._bank is not None and held:
            return self._bank.to(x.device)[_pick(draw, held)]
        itself = torch.arange(len(x), device=x.device)
        step = 1 + _pick(draw, len(x) - 1)
        return x[(itself + step) % max(1, len(x))]

    def remember(self, x: Tensor) -> None:
        """Put log-mel (B, F, T), as it came in, into the bank in place of the oldest."""
        if self.ratio == 0 or self.bank_size == 0 or len(x) == 0:
            return
        if self._bank is None:
            self._bank = x.new_zeros(self.bank_size, *x.shape[1:])
        self._bank = self._bank.to(x.device)
        newest = x[-self.bank_size :].detach()
        first = self._num_seen + len(x) - len(newest)
        slots = torch.arange(first, first + len(newest), device=x.device) % self.bank_size
        self._bank[slots] = newest
        self._num_seen += len(x)

    def rank_state(self) -> State:
        """What this worker alone holds: its bank and how many clips have gone through it."""
        if self._bank is None:
            return {}
        return {"bank": self._bank, "seen": torch.tensor(self._num_seen)}

    def load_rank_state(self, states: Sequence[State]) -> None:
        """Restore this worker's bank; of another `bank_size`, it starts empty.

        With more workers now than there were, they share the banks.
        """
        state = states[distributed.rank() % len(states)]
        bank = state.get("bank")
        if bank is not None and len(bank) == self.bank_size:
            self._bank, self._num_seen = bank.clone(), int(state["seen"])


def _pick(draw: Tensor, count: int) -> Tensor:
    """Whole numbers in [0, count) from draws in [0, 1); 0 where count is 0 or less."""
    # A float32 draw just below 1 may round up to count.
    return (draw * count).long().clamp(0, max(0, count - 1))


class RandomResizeCrop(nn.Module):
    """A random patch of a virtual canvas, resized to the input (arXiv 2103.06695, section III-B2).

    The clip lies in the middle of a canvas filled with `fill`. The patch's height and width are
    drawn from the scales (in clip heights and lengths, at most the canvas), its place uniformly
    where it fits. BYOL-A resizes bicubically; bilinear is five times as fast and used instead.

    Args:
        canvas_frequency: height of the canvas in clip heights, at least 1.
        canvas_time: width of the canvas in clip lengths, at least 1.
        frequency_scale: range of the patch's height.
        time_scale: range of the patch's width.
        fill: value of the canvas around the clip: the mean of the training clips.

    Raises:
        ValueError: a canvas is smaller than the clip, or a range is not positive and in order.
    """

    def __init__(
        self,
        canvas_frequency: float = 1.0,
        canvas_time: float = 1.5,
        frequency_scale: Sequence[float] = (0.6, 1.5),
        time_scale: Sequence[float] = (0.6, 1.5),
        fill: float = 0.0,
    ) -> None:
        super().__init__()
        _check_axis("frequency", canvas_frequency, frequency_scale)
        _check_axis("time", canvas_time, time_scale)
        # Column 0 is time and column 1 frequency: grid_sample's x and y.
        self._canvas = torch.tensor([canvas_time, canvas_frequency])
        self._low = torch.tensor([time_scale[0], frequency_scale[0]])
        self._high = torch.tensor([time_scale[1], frequency_scale[1]])
        self.fill = fill

    @property
    def is_identity(self) -> bool:
        """Whether every patch is the whole clip."""
        return bool((self._canvas == 1).all() and (self._low >= 1).all())

    def forward(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Crop and resize log-mel (B, F, T)."""
        if self.is_identity or len(x) == 0:
            return x
        image = (x - self.fill)[:, None]
        maps = self._maps(len(x), generator).to(x.device)
        grid = affine_grid(maps, list(image.shape), align_corners=False)
        patch = grid_sample(image, grid, mode="bilinear", align_corners=False)
        return patch[:, 0] + self.fill

    def _maps(self, count: int, generator: Generator | None) -> Tensor:
        """Affine maps (B, 2, 3) from the output to the clip, both spanning [-1, 1]."""
        draws = torch.rand(2, count, 2, generator=generator)
        scale = torch.minimum(self._low + draws[0] * (self._high - self._low), self._canvas)
        shift = (2 * draws[1] - 1) * (self._canvas - scale)
        return torch.cat([torch.diag_embed(scale), shift[:, :, None]], dim=2)


def _check_axis(name: str, canvas: float, scale: Sequence[float]) -> None:
    if canvas < 1:
        raise ValueError(f"The {name} canvas holds the whole clip: set 1 or more, not {canvas:g}.")
    if not 0 < scale[0] <= scale[1]:
        raise ValueError(
            f"The {name} scale ({scale[0]:g}, {scale[1]:g}) is not a range above 0;"
            " give the smaller number first."
        )


class RandomFilter(nn.Module):
    """A random smooth filter: gains that change along the bands, the same at all times.

    What another voice, room or microphone does to a sound (FilterAugment, arXiv 2110.03282, with
    lines between evenly spaced bands). The gains of `POINTS` bands are normally distributed.

    Args:
        decibels: standard deviation of the gains; 0 is off.

    Raises:
        ValueError: `decibels` is negative.
    """

    POINTS = 5

    def __init__(self, decibels: float = 0.0) -> None:
        super().__init__()
        if not decibels >= 0:
            raise ValueError(f"The gains' standard deviation is 0 dB or more; got {decibels:g}.")
        self.decibels = decibels

    def forward(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Filter log-mel (B, F, T)."""
        if self.decibels == 0 or len(x) == 0:
            return x
        gains = torch.randn(len(x), 1, self.POINTS, generator=generator) * self.decibels
        drawn = interpolate(gains, size=x.shape[1], mode="linear", align_corners=True)
        return x + (drawn[:, 0, :, None] * LOG_POWER_PER_DB).to(x.device)


class Augment(nn.Module):
    """Mixup, then a random resize crop, then a random filter: one random view of every clip.

    Args:
        mixup_ratio: see `Mixup`.
        mixup_bank: see `Mixup`.
        canvas_time: see `RandomResizeCrop`.
        frequency_scale: see `RandomResizeCrop`.
        time_scale: see `RandomResizeCrop`.
        filter_db: see `RandomFilter`.
        fill: see `RandomResizeCrop`.
    """

    def __init__(
        self,
        *,
        mixup_ratio: float,
        mixup_bank: int,
        canvas_time: float,
        frequency_scale: Sequence[float],
        time_scale: Sequence[float],
        filter_db: float,
        fill: float,
    ) -> None:
        super().__init__()
        self.mixup = Mixup(mixup_ratio, mixup_bank)
        self.crop = RandomResizeCrop(
            canvas_time=canvas_time,
            frequency_scale=frequency_scale,
            time_scale=time_scale,
            fill=fill,
        )
        self.filter = RandomFilter(filter_db)

    @torch.no_grad()
    def views(self, x: Tensor, count: int, generator: Generator | None = None) -> list[Tensor]:
        """`count` independent views, each (B, F, T), of log-mel (B, F, T); then remember it."""
        # Under autocast affine_grid would place pixels with the 8 bits of bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            views = [self._view(x, generator) for _ in range(count)]
        self.mixup.remember(x)
        return views

    def _view(self, x: Tensor, generator: Generator | None) -> Tensor:
        for change in (self.mixup, self.crop, self.filter):
            x = change(x, generator)
        return x

    def forward(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """One view (B, F, T) of log-mel (B, F, T)."""
        return self.views(x, 1, generator)[0]


class Views(Augment):
    """Two independent views of every clip: what a pre-training objective compares."""

    def forward(  # type: ignore[override]
        self, x: Tensor, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Two views, each (B, F, T), of log-mel (B, F, T)."""
        first, second = self.views(x, 2, generator)
        return first, second
