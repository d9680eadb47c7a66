"""1x1 projections from student to teacher width, and the normalisation of feature maps.

A 1x1 convolution is linear, and so are average pooling, attention pooling and every mean over cells. What the losses
need of the projected student, W x, can therefore be had from the narrow x: its covariance S gives the variance of each
projected channel, diag(W S W^T), and a pooled W x is W times the pooled x. The map of teacher width is never built;
that is most of the difference between 30 and 200 ms a step (benchmarks of csgr and pkd).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORMS = ("pkd", "instance", "none")
NO_ADAPTER = "student and teacher have maps of equal width, so no adapter is drawn"  # of a seed
EPS = 1e-5  # of the variance, as in batch normalisation: a constant channel has gradients of 1/sqrt(EPS) = 316 at most


def generator(seed: int) -> torch.Generator:
    """A source of random numbers of its own, so that torch's global one stays as it is."""
    return torch.Generator().manual_seed(int(seed))


def draw(layer: nn.Module, random: torch.Generator) -> None:
    """Give a convolution or linear layer torch's default initialisation, drawn from the given generator."""
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    bound = layer.weight[0].numel() ** -0.5
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=random)


def pointwise(inputs: int, outputs: int, random: torch.Generator, bias: bool = True) -> nn.Conv2d:
    """A 1x1 convolution, its weights drawn from the given generator."""
    layer = nn.utils.skip_init(nn.Conv2d, inputs, outputs, 1, bias=bias)
    assert isinstance(layer, nn.Conv2d)
    draw(layer, random)
    return layer


def adapters(
    student: tuple[int, ...], teacher: tuple[int, ...], random: torch.Generator, bias: bool = True
) -> nn.ModuleList:
    """One 1x1 convolution per level, or the identity where the widths are equal.

    Leave the bias out where the loss subtracts the mean of each channel: it would have no effect and no gradient.
    """
    layers = (pointwise(s, t, random, bias) if s != t else nn.Identity() for s, t in zip(student, teacher, strict=True))
    return nn.ModuleList(layers)


def none_drawn(layers: nn.ModuleList) -> bool:
    """Whether every adapter is the identity."""
    return all(isinstance(layer, nn.Identity) for layer in layers)


def semi_orthogonal(outputs: int, inputs: int, random: torch.Generator) -> Tensor:
    """A fixed random projection (outputs, inputs) that keeps mean squares: E mean((R x)^2) = mean(x^2).

    Its rows are orthonormal. Without a reduction in width it is the identity.
    """
    if outputs >= inputs:
        return torch.eye(inputs)
    square, _ = torch.linalg.qr(torch.randn(inputs, outputs, generator=random))
    return square.T.contiguous()


def gram(a: Tensor, b: Tensor) -> Tensor:
    """Sum over images and cells of the products of channels.

    Args:
        a: (B, Ca, H, W), in either memory format.
        b: (B, Cb, H, W).

    Returns:
        (Ca, Cb).
    """
    if all(x.is_contiguous(memory_format=torch.channels_last) for x in (a, b)):  # rows of channels: one product
        return cell_rows(a).T @ cell_rows(b)
    return (a.flatten(2) @ b.flatten(2).mT).sum(0)


def covariance(centred: Tensor, per_image: bool = False) -> Tensor:
    """Sum of x x^T over the cells (and images), for use in symmetric expressions only.

    There the gradient towards x is 2 G x with a symmetric G, so one of the two products of the backward pass is saved.

    Args:
        centred: (B, C, H, W).
        per_image: (B, C, C) instead of (1, C, C).
    """
    fixed = centred.detach()
    half = centred.flatten(2) @ fixed.flatten(2).mT if per_image else gram(centred, fixed)[None]
    return 2 * half - half.detach()


class _Centre(torch.autograd.Function):
    """x - mean(x) over the given dimensions; the gradient is centred alike, in two passes instead of autograd's four."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dims: tuple[int, ...]) -> Tensor:  # type: ignore[override]
        ctx.dims = dims
        return x - x.mean(dims, keepdim=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad - grad.mean(ctx.dims, keepdim=True), None


def centre(x: Tensor, dims: tuple[int, ...] = (0, 2, 3)) -> Tensor:
    """x without its mean over the given dimensions."""
    return _Centre.apply(x, dims)


def cell_rows(x: Tensor) -> Tensor:
    """(B, C, H, W) as (B * H * W, C); no copy for channels_last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


@dataclass(frozen=True)
class Feature:
    """A projected and normalised map that is not built: `scale * (weight @ centred)` per cell.

    Args:
        centred: (B, C, H, W), already without the mean of each channel.
        weight: (C_out, C), or None for the identity.
        scale: (1, C_out), or (B, C_out) for statistics per image.
    """

    centred: Tensor
    weight: Tensor | None
    scale: Tensor

    def dense(self) -> Tensor:
        """The map itself (B, C_out, H, W)."""
        x = self.centred if self.weight is None else F.conv2d(self.centred, self.weight[:, :, None, None])
        return x * self.scale[:, :, None, None]

    def pool(self, attention: Tensor) -> Tensor:
        """Weighted sums over the cells.

        Args:
            attention: (B, K, H * W).

        Returns:
            (B, K, C_out).
        """
        pooled = attention @ self.centred.flatten(2).mT
        pooled = pooled if self.weight is None else pooled @ self.weight.T
        return pooled * self.scale[:, None]

    def project(self, matrix: Tensor, pool: int = 1) -> Tensor:
        """The map after average pooling and a further linear projection.

        Args:
            matrix: (D, C_out).
            pool: Side of the pooling window in cells.

        Returns:
            (B, D, ceil(H / pool), ceil(W / pool)).
        """
        x = F.avg_pool2d(self.centred, pool, ceil_mode=True) if pool > 1 else self.centred
        kernel = matrix * self.scale[:, None]  # (1 or B, D, C_out)
        if self.weight is not None:
            kernel = kernel @ self.weight
        if len(kernel) == 1:
            return F.conv2d(x, kernel[0, :, :, None, None])
        return (kernel @ x.flatten(2)).unflatten(2, x.shape[2:])


def normalised(x: Tensor, adapter: nn.Module | None = None, norm: str = "pkd", eps: float = EPS) -> Feature:
    """Project a map and bring each channel to zero mean and unit variance, with statistics in the graph.

    Args:
        x: (B, C, H, W) float32.
        adapter: 1x1 convolution or identity.
        norm: "pkd" takes statistics per channel over batch and cells, "instance" over the cells of each image,
            "none" leaves the map as it is (only then does a bias of the adapter count).
        eps: Added to the biased variance.
    """
    if norm == "none":
        x = x if adapter is None else adapter(x)
        return Feature(x, None, x.new_ones(1, x.shape[1]))
    weight = adapter.weight.flatten(1) if isinstance(adapter, nn.Conv2d) else None
    if norm == "pkd" and weight is None and not (torch.is_grad_enabled() and x.requires_grad):
        # A constant: the fused kernel is ten times faster than var_mean on a CPU.
        unit, _, _ = torch.native_batch_norm(x, None, None, None, None, True, 0.0, eps)
        return Feature(unit, None, x.new_ones(1, x.shape[1]))
    dims = (0, 2, 3) if norm == "pkd" else (2, 3)
    cells = x.numel() // x.shape[1] // (1 if norm == "pkd" else len(x))
    centred = centre(x, dims)
    if weight is None:
        variance = centred.square().mean(dims).view(-1, x.shape[1])
    else:
        variance = ((weight @ covariance(centred, norm == "instance")) * weight).sum(-1) / cells
    return Feature(centred, weight, torch.rsqrt(variance.clamp_min(0) + eps))
