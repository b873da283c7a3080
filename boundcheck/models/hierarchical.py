"""Hierarchical encoders (HVM): q(z|x) = E_{c(m|x)} q(z|m), a mixture without a density, on an augmented latent space.

The mixing law c(m|x) may be as rich as a normalising flow. Its mixing variable m joins the latent z, and an auxiliary
model r(m|z,x) says where m came from (Ranganath, Tran & Blei 2016). On the pair (z, m) all densities are known:

    log w = log p(x,z) + log r(m|z,x) - log c(m|x) - log q(z|m),   E w = p(x) whatever r is,

so the ELBO of the augmented model is the HVM bound, and IWAE, annealing and the rest apply as they stand. Formulas of
hierarchical encoders (hvm, sivi) see the parts instead, with m in the place of x~.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from boundcheck.errors import BadInput, FormulaError, require
from boundcheck.language.laws import ModelLaw, laws_in
from boundcheck.language.terms import OBSERVED, Term
from boundcheck.models.layers import Layers
from boundcheck.models.torch_model import TorchModel
from boundcheck.models.torch_supports import log_density

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Distribution, Independent, Normal, constraints
else:
    torch = require("torch", extra="torch", feature="a torch model")
    Tensor = torch.Tensor
    Distribution, Independent, Normal, constraints = (
        getattr(torch.distributions, name) for name in ("Distribution", "Independent", "Normal", "constraints")
    )


class HierarchicalModel(TorchModel):
    """A model whose encoder mixes over m: its latent is the vector (z, m), its joint density p(x,z) r(m|z,x).

    - `mixing(x)`: c(m|x), a law of vectors with one component for each row;
    - `encoder(m)` or `encoder(m, x)`: q(z|m), a law of vectors with one component for each row;
    - `auxiliary(z, x)`: r(m|z,x), likewise;
    - `prior()` and `decoder(z)`: p(z), a law of vectors, and p(x|z).

    For the sake of samplers that start at the prior, N(0, I) stands for m there and is divided out of the likelihood
    again. A formula that takes p(z) and p(x|z) apart would see it, and is refused by `for_formula`.

    Args:
        prior: p(z).
        mixing: c(m|x), such as a normalising flow.
        encoder: q(z|m).
        decoder: p(x|z).
        auxiliary: r(m|z,x).
        mixing_size: entries of m.

    Raises:
        BadInput: an argument that is not callable, a size that is none, or, when used, a law whose events are no
            vectors of the right size.

    >>> from torch.distributions import Independent, Normal
    >>> def gaussian(mean, scale):
    ...     return Independent(Normal(mean, scale), 1)
    >>> model = HierarchicalModel(
    ...     prior=lambda: gaussian(torch.zeros(1), 1.0),
    ...     mixing=lambda x: gaussian(x / 2, 0.5),
    ...     encoder=lambda m: gaussian(m, 0.5),
    ...     decoder=lambda z: gaussian(z, 1.0),
    ...     auxiliary=lambda z, x: gaussian((z + x / 2) / 2, 0.125**0.5),
    ...     mixing_size=1,
    ... )
    >>> from boundcheck.evidence.engine import run
    >>> truth = float(Normal(0.0, 2**0.5).log_prob(torch.tensor(1.0)))
    >>> print(f"{truth:.3f} {run(model, [[1.0]], ks=(2000,)).log_mean_weight[0]:.3f}")
    -1.516 -1.516
    """

    def __init__(
        self,
        *,
        prior: Callable[[], Distribution],
        mixing: Callable[[Tensor], Distribution],
        encoder: Callable[..., Distribution],
        decoder: Callable[[Tensor], Distribution],
        auxiliary: Callable[[Tensor, Tensor], Distribution],
        mixing_size: int,
    ) -> None:
        super().__init__(prior=prior, encoder=mixing, decoder=decoder, corruption=encoder, auxiliary=auxiliary)
        self._parts = {"prior": prior, "mixing": mixing, "encoder": encoder, "decoder": decoder, "auxiliary": auxiliary}
        for name, function in self._parts.items():
            if not callable(function):
                raise BadInput(name, function, f"a function {name} that returns a torch distribution")
        self._sees_x = _takes_two(encoder)
        self._parts_alone = TorchModel(
            prior=prior, encoder=encoder, decoder=decoder, corruption=mixing, auxiliary=auxiliary
        )
        self._functions = {
            "prior": self._augmented_prior,
            "encoder": self._augmented_encoder,
            "likelihood": self._augmented_decoder,
        }
        if isinstance(mixing_size, bool) or not isinstance(mixing_size, int) or mixing_size < 1:
            raise BadInput("mixing_size", mixing_size, "the number of entries of m, at least 1")
        self._mixing_size = mixing_size

    def _size(self, name: str, law: Any) -> int:
        if not isinstance(law, Distribution):
            raise BadInput(f"{name}(...)", law, "a torch.distributions object")
        if len(law.event_shape) != 1:
            remedy = "declare its axis as an event: torch.distributions.Independent(..., 1)"
            raise BadInput(f"the event shape of {name}", tuple(law.event_shape), "that of a vector, (n,)", remedy)
        return int(law.event_shape[0])

    def _augmented_encoder(self, x: Tensor) -> Distribution:
        mixing = self._parts["mixing"](x)
        sizes = {"z": self._size("prior", self._parts["prior"]()), "m": self._size("mixing", mixing)}
        if sizes["m"] != self._mixing_size:
            raise BadInput("mixing_size", self._mixing_size, f"{sizes['m']}, the size of a draw from mixing(x)")

        def encoder(m: Tensor) -> Distribution:
            if not self._sees_x:
                return self._parts["encoder"](m)
            return self._parts["encoder"](m, x.repeat(len(m) // len(x), *[1] * (x.ndim - 1)))

        return Layers({"m": mixing, "z": encoder}, sizes)

    def _augmented_prior(self) -> Distribution:
        prior = self._parts["prior"]()
        size = self._size("prior", prior)
        with torch.random.fork_rng(devices=[]):
            like = prior.sample()
        reference = Independent(Normal(like.new_zeros(self._mixing_size), 1.0), 1)
        return _Beside(prior, reference, size)

    def _augmented_decoder(self, points: Tensor) -> Distribution:
        size = self._size("prior", self._parts["prior"]())
        z, m = points[:, :size], points[:, size:]
        return _Augmented(self._parts["decoder"](z), self._parts["auxiliary"], z, m)

    def for_formula(self, term: Term) -> TorchModel:
        """The model that a formula sees: (z, m) as its latent, or, if it names c(x~|x), the parts with m for x~.

        Raises:
            FormulaError: a formula with p(z) or p(x|z) apart from log p(x,z), which the augmented model lacks; or one
                with c(x~|x) and q(z|x), or with an encoder that sees x beside m.
        """
        laws = [law for law in laws_in(term) if isinstance(law, ModelLaw)]
        roles = {law.role for law in laws}
        if "corruption" in roles or "auxiliary" in roles:
            if self._sees_x:
                raise FormulaError("q(z|m,x) sees x, so that no q(z|x~) can stand for it; the elbo is the HVM bound")
            if any(law.role == "encoder" and law.args == (OBSERVED,) for law in laws):
                raise FormulaError("q(z|x) has no meaning for a hierarchical model, whose encoder takes m, not x")
            self._parts_alone.module = self.module
            return self._parts_alone
        if roles & {"prior", "likelihood"}:
            raise FormulaError(
                "a hierarchical model has log p(x,z) as a whole: write m.log_joint(x, z); taken apart, p(z) and p(x|z) "
                "would leave out the auxiliary model"
            )
        return self

    def draw_pair(self, rows: int) -> tuple[Tensor, Tensor]:
        """x and (z, m) from the joint law: z ~ p(z), x ~ p(x|z), m ~ r(m|z,x), so that (z, m) is a posterior draw."""
        prior = self._parts["prior"]()
        z = prior.sample((rows,))
        x = self._parts["decoder"](z).sample()
        m = self._parts["auxiliary"](z, x).sample()
        return x, torch.cat([z, m], dim=-1)


def _takes_two(encoder: Callable[..., Any]) -> bool:
    """True for encoder(m, x), False for encoder(m); what has a default is counted only if it is called x."""
    called = encoder.forward if isinstance(encoder, torch.nn.Module) else encoder
    given = [
        each
        for each in inspect.signature(called).parameters.values()
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    return len(given) > 1 and (given[1].default is given[1].empty or given[1].name == "x")


class _Beside(Distribution):
    """Two independent vectors, side by side."""

    def __init__(self, first: Distribution, second: Distribution, size: int) -> None:
        self.first, self.second, self.size = first, second, size
        width = torch.Size([size + int(second.event_shape[0])])
        super().__init__(first.batch_shape, width, validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, Any]:
        return {}

    @property
    def support(self) -> Any:
        return constraints.real_vector

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return torch.cat([self.first.sample(sample_shape), self.second.sample(sample_shape)], dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        return log_density(self.first, value[..., : self.size]) + self.second.log_prob(value[..., self.size :])


class _Augmented(Distribution):
    """x -> p(x|z) r(m|z,x) / N(m; 0, I) at given (z, m): a density of x up to a factor, drawn as p(x|z) draws."""

    def __init__(self, decoder: Distribution, auxiliary: Callable[..., Distribution], z: Tensor, m: Tensor) -> None:
        if not isinstance(decoder, Distribution):
            raise BadInput("decoder(z)", decoder, "a torch.distributions object")
        self.decoder, self.auxiliary, self.z, self.m = decoder, auxiliary, z, m
        super().__init__(decoder.batch_shape, decoder.event_shape, validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, Any]:
        return {}

    @property
    def support(self) -> Any:
        return self.decoder.support

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return self.decoder.sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        lead = torch.broadcast_shapes(value.shape[: value.ndim - len(self.event_shape)], self.batch_shape)
        x = value.expand(*lead, *self.event_shape).reshape(-1, *self.event_shape)
        copies = max(1, len(x) // max(1, len(self.z)))
        z, m = self.z.repeat(copies, 1), self.m.repeat(copies, 1)
        source = self.auxiliary(z, x)
        if tuple(source.event_shape) != tuple(m.shape[1:]):
            raise BadInput(
                "the event shape of auxiliary(z, x)", tuple(source.event_shape), f"{tuple(m.shape[1:])}, as m"
            )
        reference = -0.5 * (m.square().sum(-1) + m.shape[-1] * math.log(2 * math.pi))
        extra = log_density(source, m) - reference
        return self.decoder.log_prob(value).expand(lead) + extra.reshape(lead)


__all__ = ["HierarchicalModel"]
