"""sum_i log Bernoulli(x_i; sigmoid(l_i)) for logits l = W h + b, in few passes over memory.

With s = 2x - 1 in {-1, 1}, the log-probability of binary x is -sum_i softplus(-s_i l_i): one softplus for each pixel
and nothing to cancel. The signs, and a factor of -log2(e), go into a copy of W and b, once for each example, so that
the product itself gives u = -s l log2(e), and softplus(-s l) = log(2) log2(1 + 2^u). A power is cheap and a logarithm
is not, so logarithms are taken of products of sixteen factors 1 + 2^u >= 1, each multiplied in as a + a 2^u. Such a
product overflows, visibly, where a model is more than 88 nats wrong about sixteen pixels; those rows are done again,
pixel by pixel. Rows are worked on in chunks that stay in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from boundcheck.errors import require

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = require("torch", extra="torch", feature="log-weights of a trained model")
    Tensor = torch.Tensor

CHUNK = 512
"""Rows whose logits are in memory at once, on a CPU."""
FLOATS = (torch.float32, torch.float64)
"""The floating types that are worked in."""
_FOLD = 16
"""Pixels whose factors are multiplied before a logarithm is taken; a power of two."""
_LARGEST_KEPT = 31 << 20
"""Bytes; glibc considers blocks up to 32 MiB."""
_PADDING = -2000.0
"""u of a pixel that is not there: 2^-2000 is 0."""
_LOG2_E = math.log2(math.e)
# oneDNN's product uses a processor's widest vectors whoever made it, at more than twice the speed of the usual one on
# some; torch offers it under this name, and where it does not, the usual one gives the same numbers.
_ONEDNN = (
    torch.ops.mkldnn._linear_pointwise.default
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    else None
)
_PACK = torch.ops.mkldnn._reorder_linear_weight if hasattr(torch.ops.mkldnn, "_reorder_linear_weight") else None


def packed(weight: Tensor) -> Tensor:
    """W in the order in which the product with `CHUNK` rows reads it, for `linear` alone; W itself where that has none.

    >>> linear(torch.ones(1, 2), packed(torch.tensor([[1.0, 2.0]])), torch.tensor([-4.0])).tolist()
    [[-1.0]]
    """
    if _ONEDNN is None or _PACK is None or weight.dtype != torch.float32 or weight.device.type != "cpu":
        return weight
    return _PACK(weight.contiguous(), CHUNK)


def linear(h: Tensor, weight: Tensor, bias: Tensor, activation: str = "none") -> Tensor:
    """activation(h W^T + b) for rows h, where the activation is none, relu, sigmoid or tanh; a new tensor.

    >>> linear(torch.ones(1, 2), torch.tensor([[1.0, 2.0]]), torch.tensor([-4.0]), "relu").tolist()
    [[0.0]]
    """
    if _ONEDNN is not None and h.dtype == torch.float32 and h.device.type == "cpu":
        return _ONEDNN(h, weight, bias, activation, [], "")
    product = torch.nn.functional.linear(h, weight, bias)
    return product if activation == "none" else getattr(torch, activation)(product)


def keep_freed_memory() -> None:
    """Let freed buffers stay with the process, so that the next chunk need not have its pages mapped and cleared again.

    glibc hands large blocks back to the system one by one, until it has seen a larger one freed: then it keeps what is
    smaller. The block that it is shown here is never touched, so it takes no memory.
    """
    torch.empty(_LARGEST_KEPT, dtype=torch.uint8)


class BernoulliHead:
    """log p(x | h) = sum_i log Bernoulli(x_i; sigmoid((W h + b)_i)) in nats, in float32 or float64 on a CPU.

    How far the result may be off is said by `error_bound`, and is rarely a hundredth of that.

    Args:
        weight: W, of shape (pixels, hidden).
        bias: b, of shape (pixels,), or None for zeros.

    >>> head = BernoulliHead(torch.zeros(3, 2), torch.tensor([0.0, 100.0, -200.0]))
    >>> [round(float(value), 4) for value in head.log_prob(torch.ones(2, 2), torch.eye(3)[:2])]
    [-100.6931, -0.6931]
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.pixels, self.hidden = weight.shape
        padded = math.ceil(self.pixels / _FOLD) * _FOLD
        self.weight = weight.new_zeros(padded, self.hidden)
        self.bias = weight.new_full((padded,), _PADDING)
        self.weight[: self.pixels] = weight.detach() * -_LOG2_E
        self.bias[: self.pixels] = 0.0 if bias is None else bias.detach() * -_LOG2_E

    def signs(self, x: Tensor) -> Tensor:
        """2x - 1 for zeros and ones of shape (..., pixels), and 1 for the padding."""
        signs = self.weight.new_ones(*x.shape[:-1], len(self.bias))
        signs[..., : self.pixels] = 2 * x - 1
        return signs

    def at(self, x: Tensor) -> SignedHead:
        """log p(x | .) at one x of shape (pixels,), for many h."""
        signs = self.signs(x)
        return SignedHead(packed(self.weight * signs[:, None]), self.bias * signs)

    def error_bound(self, h: Tensor, log_prob: Tensor) -> Tensor:
        """How far log p(x | h) may be off, in nats; see the function of that name."""
        part = slice(None, self.pixels)
        return error_bound(self.weight[part] / _LOG2_E, self.bias[part] / _LOG2_E, h, log_prob)

    def log_prob(self, h: Tensor, x: Tensor) -> Tensor:
        """log p(x | h) row by row.

        Args:
            h: shape (rows, hidden).
            x: zeros and ones of shape (rows, pixels).

        Returns:
            float64, of shape (rows,).
        """
        chunks = [self._chunk(*part) for part in zip(h.split(CHUNK), x.split(CHUNK), strict=True)]
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks)

    def _chunk(self, h: Tensor, x: Tensor) -> Tensor:
        signs = self.signs(x)
        return _log_probs(lambda: linear(h, self.weight, self.bias).mul_(signs))


def error_bound(weight: Tensor, bias: Tensor, h: Tensor, log_prob: Tensor) -> Tensor:
    """How far a fused log p(x | h) may be off, in nats, by the usual count of roundings, with h taken as given:

        u ((n + 16) sum_i (|W| |h| + |b|)_i + 4 d + 56 |log p(x | h)|)

    for n entries of h, d pixels, and the unit roundoff u of the floating type, 6e-8 in float32. The first term is that
    of any product in this type.

    Args:
        weight: W, of shape (pixels, hidden).
        bias: b, of shape (pixels,).
        h: shape (rows, hidden).
        log_prob: log p(x | h), of shape (rows,).

    Returns:
        float64, of shape (rows,).

    >>> one = torch.ones(1)
    >>> round(float(error_bound(one[None], one, one[None], -one)) * 2**24)
    94
    """
    pixels, hidden = weight.shape
    sizes = h.double().abs() @ weight.double().abs().sum(0) + bias.double().abs().sum()
    roundings = (hidden + 16) * sizes + 4 * pixels + 56 * log_prob.double().abs()
    return torch.finfo(weight.dtype).eps / 2 * roundings


class SignedHead:
    """h -> log p(x | h) at one x, in nats: from rows of shape (rows, hidden) to float64 of shape (rows,)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, h: Tensor) -> Tensor:
        chunks = [_log_probs(lambda part=part: linear(part, self.weight, self.bias)) for part in h.split(CHUNK)]
        return chunks[0] if len(chunks) == 1 else torch.cat(chunks)


def _log_probs(exponents: Callable[[], Tensor]) -> Tensor:
    """-log(2) sum_i log2(1 + 2^u_i) for each row of u, which is computed by a call, here and where rows overflow."""
    products, *others = exponents().exp2_().chunk(_FOLD // 4, 1)
    products.add_(1.0)
    for powers in others:
        products.addcmul_(products, powers)
    for _ in range(2):
        half = products.shape[1] // 2
        products = products[:, :half] * products[:, half:]
    sums = products.log2_().sum(1).double()
    if not math.isfinite(sums.sum()):
        lost = ~sums.isfinite()
        u = exponents()[lost]
        # Beyond 2^20 bits float32 would round a whole pixel away: such rows are worth their float64.
        sums[lost] = (
            u.clamp(min=0).sum(1, dtype=torch.float64)
            + u.abs().neg_().exp2_().log1p_().sum(1, dtype=torch.float64) * _LOG2_E
        )
    return sums.mul_(-math.log(2))


__all__ = ["CHUNK", "FLOATS", "BernoulliHead", "SignedHead", "error_bound", "keep_freed_memory", "linear", "packed"]
