"""Laws whose parameters make them none, met where torch does not look: zuko, for one, switches its validation off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributions as d
from torch.distributions import Distribution, Independent, Normal

from boundcheck.errors import BadInput
from boundcheck.evidence import evaluate_model
from boundcheck.models.torch_model import TorchModel
from boundcheck.models.torch_supports import refuse_parameters

MINUS, HALF, ONE = torch.tensor(-0.5), torch.tensor(0.5), torch.tensor(1.0)


@pytest.fixture(autouse=True)
def _unvalidated() -> Iterator[None]:
    Distribution.set_default_validate_args(False)
    yield
    Distribution.set_default_validate_args(True)


WRONG: dict[str, Callable[[], Distribution]] = {
    "concentration1": lambda: d.Beta(MINUS, ONE),
    "concentration": lambda: d.Gamma(MINUS, ONE),
    "scale": lambda: d.Weibull(MINUS, ONE),
    "total_count": lambda: d.NegativeBinomial(MINUS, probs=HALF),
    "df": lambda: d.StudentT(MINUS),
    "rate": lambda: Independent(d.Gamma(torch.ones(2), torch.tensor([1.0, -1.0])), 1),
    "df1": lambda: d.FisherSnedecor(MINUS, ONE),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_parameters_are_named(name: str) -> None:
    with pytest.raises(BadInput, match=rf"^{name} of decoder\(z\)"):
        refuse_parameters(WRONG[name](), "decoder(z)")


@pytest.mark.parametrize("law", [d.InverseGamma, d.VonMises, d.Kumaraswamy, d.Pareto])
def test_laws_built_on_others_are_looked_into(law: Any) -> None:
    with pytest.raises(BadInput):
        refuse_parameters(law(MINUS, MINUS), "decoder(z)")
    components = d.Gamma(torch.tensor([1.0, -1.0]), torch.ones(2))
    with pytest.raises(BadInput, match="concentration"):
        refuse_parameters(d.MixtureSameFamily(d.Categorical(torch.ones(2)), components), "decoder(z)")


RIGHT: list[Callable[[], Distribution]] = [
    lambda: d.Beta(HALF, ONE),
    lambda: d.Dirichlet(torch.tensor([0.5, 2.0])),
    lambda: d.NegativeBinomial(ONE, logits=MINUS),
    lambda: d.RelaxedBernoulli(HALF, logits=MINUS),
    lambda: d.Multinomial(3, torch.rand(500)),
    lambda: d.OneHotCategorical(logits=torch.randn(500)),
    lambda: d.LogNormal(MINUS, ONE),
    lambda: d.Poisson(torch.tensor(0.0)),
    lambda: d.Gamma(torch.tensor(float("nan")), ONE),  # found by its densities, row by row
]


@pytest.mark.parametrize("number", range(len(RIGHT)))
def test_right_parameters_and_nan_pass(number: int) -> None:
    refuse_parameters(RIGHT[number](), "decoder(z)")


def model(decoder: Callable[[torch.Tensor], Distribution]) -> TorchModel:
    return TorchModel(
        prior=lambda: Independent(Normal(torch.zeros(2), 1.0), 1),
        encoder=lambda x: Independent(Normal(torch.where(x > 5, 100.0, 0.0), 1.0), 1),
        decoder=decoder,
    )


def test_a_decoder_that_gives_wrong_parameters_is_refused() -> None:
    """A Beta of a negative shape has a finite "density" whose mass is not one: figures from it would mean nothing."""
    wrong = model(lambda z: Independent(d.Beta(-0.5 + 0 * z, 1.0 + 0 * z), 1))
    assert bool(torch.isfinite(d.Beta(MINUS, ONE).log_prob(HALF)))
    with pytest.raises(BadInput, match=r"concentration1 of decoder\(z\), a Beta law = -0.5"):
        evaluate_model(wrong, torch.full((3, 2), 0.5), k=10, simulated=0)


def test_an_example_that_gives_wrong_parameters_is_named_and_the_others_are_evaluated() -> None:
    mostly = model(lambda z: Independent(d.Gamma(50 - z, 1.0 + 0 * z), 1))
    x = torch.tensor([[50.0, 49.0]] * 2).clamp(max=4.0)
    x = torch.cat([x, torch.full((1, 2), 6.0), x])
    card = evaluate_model(mostly, x, k=10, simulated=0)
    assert list(card.failed) == [2] and "concentration of decoder(z)" in card.failed[2]
    assert card.value.examples == 4 and np.isfinite(card.value.mean)
