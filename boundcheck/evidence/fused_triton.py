"""sum_i log Bernoulli(x_i; sigmoid((W h + b)_i)) on a GPU, by one kernel that never writes the logits.

A program takes some rows and goes through the pixels tile by tile: it multiplies, adds the bias, takes softplus(-s l)
with s = 2x - 1, and adds up, all in registers. Only h is read and one number for each row is written. For R rows, H
hidden units, D pixels and N examples this is

    2 R D H operations of the product, about 10 R D of the softplus, of which 2 R D are an exponential or a logarithm,
    4 R H bytes of h, 4 D (H + 1) of W and b, N D of x, 8 R of row numbers and 8 R of results,

where the plain way writes and reads 4 R D bytes of logits several times. At D = 784 and H = 200 that is 385 operations
for each byte: the product, not the memory, is the limit, on any GPU. `work` counts them.

The product is in float32, or in three TF32 products that are as good, where the GPU has them. Needs triton, which
torch's CUDA builds for Linux bring along; without it the models' own laws are used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from boundcheck.errors import CannotCompute, require
from boundcheck.evidence.fused_bernoulli import error_bound
from boundcheck.models.torch_model import out_of_memory

if TYPE_CHECKING:
    from typing import Any as constexpr

    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="log-weights of a trained model")
    Tensor = torch.Tensor

triton: Any = import_module("triton") if find_spec("triton") else None
tl: Any = import_module("triton.language") if triton else None
if not TYPE_CHECKING:
    constexpr = tl.constexpr if triton else None

TILE = _ROWS, _PIXELS, _UNITS = 64, 64, 16
"""The tile that a program works on: rows of h, pixels, and hidden units at once."""
WARPS = 8
"""With this tile, the most that keep all of it in registers on compute capabilities from 7.5 to 9.0."""


class Work(NamedTuple):
    """What a computation needs at least: floating-point operations, and bytes to and from the GPU's memory."""

    operations: int
    bytes: int


def work(rows: int, hidden: int, pixels: int, examples: int = 1) -> Work:
    """What the kernel needs for so many rows of h; the module says how it is counted.

    >>> needed = work(rows=5000, hidden=200, pixels=784)
    >>> round(needed.operations / needed.bytes)
    341
    """
    product, softplus = 2 * rows * pixels * hidden, 10 * rows * pixels
    read = 4 * rows * hidden + 4 * pixels * (hidden + 1) + examples * pixels + 8 * rows
    return Work(product + softplus, read + 8 * rows)


def available() -> bool:
    """True if triton can be imported."""
    return triton is not None


if triton is not None:

    @triton.jit
    def _log_probs(
        h,
        weight,
        bias,
        x,
        which,
        out,
        rows,
        pixels,
        hidden,
        precision: constexpr,
        row_tile: constexpr,
        pixel_tile: constexpr,
        unit_tile: constexpr,
    ):
        # 64 bits: rows times pixels may be more than 2^31.
        row = tl.program_id(0).to(tl.int64) * row_tile + tl.arange(0, row_tile)
        given = row < rows
        example = tl.load(which + row, mask=given, other=0)
        total = tl.zeros((row_tile,), dtype=tl.float64)
        for first_pixel in range(0, pixels, pixel_tile):
            pixel = first_pixel + tl.arange(0, pixel_tile)
            exists = pixel < pixels
            logits = tl.zeros((row_tile, pixel_tile), dtype=tl.float32)
            for first_unit in range(0, hidden, unit_tile):
                unit = first_unit + tl.arange(0, unit_tile)
                used = unit < hidden
                left_mask, right_mask = given[:, None] & used[None, :], used[:, None] & exists[None, :]
                left = tl.load(h + row[:, None] * hidden + unit[None, :], mask=left_mask, other=0.0)
                right = tl.load(weight + pixel[None, :] * hidden + unit[:, None], mask=right_mask, other=0.0)
                logits = tl.dot(left, right, logits, input_precision=precision)
            logits += tl.load(bias + pixel, mask=exists, other=0.0)[None, :]
            seen_mask = given[:, None] & exists[None, :]
            seen = tl.load(x + example[:, None] * pixels + pixel[None, :], mask=seen_mask, other=0).to(tl.float32)
            wrong = (1.0 - 2.0 * seen) * logits
            loss = tl.maximum(wrong, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(wrong)))
            total += tl.sum(tl.where(exists[None, :], loss, 0.0), axis=1).to(tl.float64)
        tl.store(out + row, -total, mask=given)


class TritonHead:
    """log p(x | h) = sum_i log Bernoulli(x_i; sigmoid((W h + b)_i)) in nats, in float32 on a CUDA device.

    Args:
        weight: W, of shape (pixels, hidden).
        bias: b, of shape (pixels,), or None for zeros.
        precision: of the product, as triton names it; None for the best there is.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, precision: str | None = None) -> None:
        self.pixels, self.hidden = weight.shape
        self.weight = weight.detach().contiguous()
        self.bias = weight.new_zeros(self.pixels) if bias is None else bias.detach().contiguous()
        self.precision = precision or _precision(weight.device)

    def error_bound(self, h: Tensor, log_prob: Tensor) -> Tensor:
        """How far log p(x | h) may be off, in nats; see `fused_bernoulli.error_bound`."""
        return error_bound(self.weight, self.bias, h, log_prob)

    def log_prob(self, h: Tensor, x: Tensor, which: Tensor | None = None) -> Tensor:
        """log p(x | h) row by row.

        Args:
            h: shape (rows, hidden).
            x: zeros and ones of shape (examples, pixels).
            which: which example a row belongs to, int64 of shape (rows,); None if there is one example for each row,
                or one for all.

        Returns:
            float64, of shape (rows,).

        Raises:
            CannotCompute: triton could not compile the kernel for this device.
        """
        h, rows = h.contiguous(), len(h)
        if which is None:
            which = torch.arange(rows, device=h.device) if len(x) > 1 else torch.zeros_like(h[:, 0], dtype=torch.int64)
        out = torch.empty(rows, dtype=torch.float64, device=h.device)
        seen = x.to(torch.uint8).contiguous()
        arguments = (h, self.weight, self.bias, seen, which, out, rows, self.pixels, self.hidden)
        try:
            _log_probs[(triton.cdiv(rows, _ROWS),)](*arguments, self.precision, *TILE, num_warps=WARPS)
        except Exception as error:  # compilers, linkers and drivers fail in many ways
            if out_of_memory(error):
                raise
            reason = f"triton could not run its kernel ({type(error).__name__})"
            raise CannotCompute("the fused GPU path", "log p(x | z)", reason) from error
        return out


def _precision(device: torch.device) -> str:
    if device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= (8, 0):
        return "tf32x3"
    return "ieee"


__all__ = ["TritonHead", "Work", "available", "work"]
