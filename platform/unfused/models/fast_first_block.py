"""The encoder's first block on CPU: convolution, batch norm, max-pooling and ReLU in one pass.

Its full-size activations are three quarters of the encoder's, and moving them through memory takes
longer than computing them. Here they exist for a few clips at a time, in the cache: once going
forward, and once more for the gradient. Two facts allow it:

- One channel goes in, so mean and variance of what the convolution will give follow from its 3x3
  input patches (9 means, 9x9 covariances), and batch norm becomes part of the weights.
- A pooled value is the largest of four products: of one 4x4 patch with the kernel in each of the
  four places that it has there.

The clever part behind the switch "first_block".

The rule of this file: values, gradients and running statistics are those of the plain modules, up
to rounding; where that cannot be had (a GPU, synchronised batch norm) the plain modules run.

Axes: B clips, F mel bands, T frames, C channels, N pooled positions (B * F/2 * T/2), n of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unfused import speedups

KERNEL, PATCH = 3, 4
"""Sides of the kernel, and of the patch that a pooled value sees."""
PLACES = ((0, 0), (1, 0), (0, 1), (1, 1))
"""Rows and columns by which the kernel is moved in its patch: left ones first, top ones first."""
POSITIONS_IN_CACHE = 6144
"""Pooled positions computed together: 3 MiB of full-size activations in bfloat16."""


def swap_in(blocks: nn.ModuleList) -> None:
    """Replace the first of the encoder's blocks, where the part is on; the weights stay."""
    if speedups.enabled("first_block"):
        blocks[0] = FirstBlock(*blocks[0])


class FirstBlock(nn.Sequential):
    """Convolution 3x3 from one channel, batch norm, max-pooling 2x2, ReLU: (B, 1, F, T) to
    (B, C, F/2, T/2), rounded down.

    Args:
        modules: these four, as a plain block has them.
    """

    def forward(self, x: Tensor) -> Tensor:
        plain = x.device.type != "cpu" or x.requires_grad or type(self[1]) is not nn.BatchNorm2d
        if plain or x.numel() == 0:
            return super().forward(x)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        with torch.autocast("cpu", enabled=False):
            weight, bias = self._with_norm(x)
            pooled = _LargestProduct.apply(patches(x.to(dtype)), _placed(weight), bias)
        clips, _, bands, frames = x.shape
        return pooled.view(clips, bands // 2, frames // 2, -1).permute(0, 3, 1, 2)

    def _with_norm(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weight (C, 3, 3) and bias (C,) of a convolution that batch norm is part of."""
        conv, norm = self[0], self[1]
        weight = conv.weight.flatten(1)
        if self.training:
            mean, covariance, count = patch_statistics(x.float())
            mean = weight @ mean + conv.bias
            variance = (weight @ covariance * weight).sum(dim=1)
            _follow(norm, mean.detach(), variance.detach() * count / max(1, count - 1))
        else:
            mean, variance = norm.running_mean, norm.running_var
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        bias = norm.bias + scale * (conv.bias - mean)
        return (scale[:, None] * weight).unflatten(1, (KERNEL, KERNEL)), bias


@torch.no_grad()
def _follow(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Move running statistics towards those of a batch, as batch norm itself does."""
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance, norm.momentum)


def patches(x: Tensor) -> Tensor:
    """(B, 1, F, T) to the 4x4 patch (N, 16) around every 2x2 window, zeros outside the image."""
    clips, _, bands, frames = x.shape
    rows, columns = bands // 2, frames // 2
    padded = functional.pad(x[:, 0], (1, 1, 1, 1))
    found = x.new_empty(clips, rows, columns, PATCH * PATCH)
    for place in range(PATCH * PATCH):
        top, left = divmod(place, PATCH)
        found[..., place] = padded[:, top : top + 2 * rows : 2, left : left + 2 * columns : 2]
    return found.flatten(0, 2)


def patch_statistics(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Statistics of the 3x3 patches of (B, 1, F, T), zeros outside the image.

    Returns:
        Mean (9,), covariance (9, 9) and the number of patches.
    """
    clips, _, bands, frames = x.shape
    padded = functional.pad(x[:, 0], (1, 1, 1, 1))
    found = x.new_empty(clips, KERNEL * KERNEL, bands, frames)
    for place in range(KERNEL * KERNEL):
        top, left = divmod(place, KERNEL)
        found[:, place] = padded[:, top : top + bands, left : left + frames]
    found = found.flatten(2)
    count = clips * bands * frames
    mean = found.sum(dim=2).double().sum(dim=0) / count
    squares = torch.bmm(found, found.transpose(1, 2)).double().sum(dim=0) / count
    return mean.float(), (squares - torch.outer(mean, mean)).float(), count


def _placed(weight: Tensor) -> Tensor:
    """(C, 3, 3) to (16, 4 C): the kernel at each of `PLACES` in a patch that is zero elsewhere."""
    placed = [
        functional.pad(weight, (left, 1 - left, top, 1 - top)).flatten(1).T for top, left in PLACES
    ]
    return torch.cat(placed, dim=1)


class _LargestProduct(torch.autograd.Function):
    """relu(max over places of patches @ weight[:, place] + bias): (N, 16), (16, 4 C) to (N, C)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        kernels, shift = weight.to(rows.dtype), bias.to(rows.dtype)
        out = rows.new_empty(len(rows), len(bias))
        for chunk, (_, columns) in _products(rows, kernels):
            _larger(columns, out=out[chunk]).add_(shift).relu_()
        ctx.save_for_backward(rows, kernels, out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        rows, kernels, out = ctx.saved_tensors
        gradient = gradient.contiguous()
        weight, bias = torch.zeros(kernels.shape), torch.zeros(out.shape[1])
        for chunk, (sides, columns) in _products(rows, kernels):
            above = torch.ops.aten.threshold_backward(gradient[chunk], out[chunk], 0)
            bias += above.sum(dim=0)
            _divide(above, columns)
            _divide(columns, sides)
            weight += rows[chunk].T @ sides
        return None, weight, bias


def _products(rows: Tensor, kernels: Tensor) -> Iterator[tuple[slice, tuple[Tensor, Tensor]]]:
    """Patches (N, 16) with the kernels (16, 4 C), a chunk at a time in the same memory.

    Yields:
        Which patches; their products (n, 4 C), left half and right half, and the larger of the
        two (n, 2 C), top half and bottom half.
    """
    most = min(len(rows), POSITIONS_IN_CACHE)
    sides = rows.new_empty(most, kernels.shape[1])
    columns = rows.new_empty(most, kernels.shape[1] // 2)
    for start in range(0, len(rows), most):
        some = rows[start : start + most]
        here, columns_here = sides[: len(some)], columns[: len(some)]
        torch.mm(some, kernels, out=here)
        yield slice(start, start + len(some)), (here, _larger(here, out=columns_here))


def _larger(pair: Tensor, out: Tensor) -> Tensor:
    """The larger of the two halves of every row."""
    return torch.maximum(*pair.chunk(2, dim=1), out=out)


def _divide(gradient: Tensor, pair: Tensor) -> None:
    """Replace halves of rows, of which the larger went on, by their shares of its gradient.

    All of it goes to the second where that is larger, else to the first, as in torch's pooling.
    """
    first, second = pair.chunk(2, dim=1)
    second.sub_(first)
    torch.ops.aten.threshold_backward.grad_input(gradient, second, 0, grad_input=second)
    torch.sub(gradient, second, out=first)
