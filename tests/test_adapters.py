"""Models of Pyro and pythae against the libraries' own estimates and against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO
from pythae.models import AE, IWAE, VAE, AEConfig, IWAEConfig, VAEConfig
from torch.distributions import Normal

from boundcheck.adapters.pyro import from_pyro
from boundcheck.adapters.pythae import from_pythae
from boundcheck.catalogue import objectives
from boundcheck.errors import BadInput
from boundcheck.evaluators.monte_carlo import evaluate
from boundcheck.evidence import evaluate_model
from boundcheck.evidence.engine import run

DOUBLE = {"dtype": torch.float64}
X = torch.tensor([[0.3, -0.2], [1.5, 0.4], [-0.7, 2.0]], **DOUBLE)


def model(x: torch.Tensor) -> None:
    """z ~ N(0,1), s | z ~ N(z, 1/4), x_1 ~ N(s, 1), x_2 ~ N(s, 1): two latent sites."""
    with pyro.plate("examples", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1, **DOUBLE), 1.0).to_event(1))
        s = pyro.sample("s", dist.Normal(z, 0.5).to_event(1))
        pyro.sample("x", dist.Normal(s.expand(-1, 2), 1.0).to_event(1), obs=x)


def guide(x: torch.Tensor) -> None:
    with pyro.plate("examples", len(x)):
        mean = x.mean(-1, keepdim=True) * 0.7
        z = pyro.sample("z", dist.Normal(0.8 * mean, 0.8).to_event(1))
        pyro.sample("s", dist.Normal(0.3 * z + 0.6 * mean, 0.5).to_event(1))


def log_evidence(x: torch.Tensor) -> np.ndarray:
    covariance = torch.full((2, 2), 1.25, **DOUBLE) + torch.eye(2, **DOUBLE)
    return torch.distributions.MultivariateNormal(torch.zeros(2, **DOUBLE), covariance).log_prob(x).numpy()


def test_weights_of_a_pyro_pair_have_the_evidence_for_their_mean() -> None:
    """60,000 weights: within 6 of their own standard errors for each of three examples."""
    result = run(from_pyro(model, guide, X), X, ks=(1, 60_000))
    assert (np.abs(result.log_mean_weight - log_evidence(X)) < 6 / np.sqrt(result.effective_sample_sizes)).all()
    assert (result.iwae[0] < log_evidence(X)).all()


def test_the_elbo_and_iwae_of_a_pyro_pair_are_pyros_own() -> None:
    """Means over 400 (20 for K = 10) of Pyro's own losses of 500 draws, within 6 standard errors of the difference."""
    pyro.set_rng_seed(0)
    wrapped = from_pyro(model, guide, X)
    for k, calls in ((1, 60), (10, 60)):
        loss = Trace_ELBO() if k == 1 else RenyiELBO(alpha=0.0, num_particles=k, vectorize_particles=False)
        theirs = np.array([-loss.loss(model, guide, X) for _ in range(calls)])
        result = run(wrapped, X, ks=(k, 3000))
        ours, error = result.iwae[0].sum(), math.sqrt(float((result.iwae_errors[0] ** 2).sum()))
        assert abs(theirs.mean() - ours) < 6 * math.hypot(theirs.std(ddof=1) / math.sqrt(calls), error)


def test_formulas_that_need_the_prior_apart_work_on_a_pyro_pair() -> None:
    (first, *_) = evaluate(objectives.beta_objective, from_pyro(model, guide, X), X, n=200, seed=1, beta=1)
    (elbo, *_) = evaluate(objectives.elbo, from_pyro(model, guide, X), X, n=200, seed=1)
    assert abs(first.mean - elbo.mean) < 6 * math.hypot(first.standard_error, elbo.standard_error)


def test_pairs_are_drawn_from_the_joint_law_of_a_pyro_model() -> None:
    """The covariance of 40,000 draws of x is that of the model: 6 standard errors."""
    pyro.set_rng_seed(1)
    x, z = from_pyro(model, guide, X).draw_pair(40_000)
    assert x.shape == (40_000, 2) and z.shape == (40_000, 2)
    products = x[:, :, None] * x[:, None, :]
    expected = torch.tensor([[2.25, 1.25], [1.25, 2.25]], **DOUBLE)
    assert bool(((products.mean(0) - expected).abs() < 6 * products.std(0) / 200).all())


def test_a_plate_of_more_rows_than_the_batch_scales_no_density() -> None:
    """Pyro weighs a batch of some of 100 rows by 100 / rows in its loss; log p(x) of a row has no such weight."""

    def of_many(program: Callable) -> Callable:
        def run_it(x: torch.Tensor) -> None:
            with pyro.poutine.scale(scale=100 / len(x)):
                program(x)

        return run_it

    plain = run(from_pyro(model, guide, X), X, ks=(1, 20))
    assert np.array_equal(run(from_pyro(of_many(model), of_many(guide), X), X, ks=(1, 20)).iwae, plain.iwae)


def test_what_a_mask_hides_is_no_part_of_the_data() -> None:
    """With x_2 hidden, log p(x) is that of x_1 ~ N(0, 2.25); 6 standard errors of 20,000 weights."""

    def half(x: torch.Tensor) -> None:
        with pyro.plate("examples", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(1, **DOUBLE), 1.0).to_event(1))
            s = pyro.sample("s", dist.Normal(z, 0.5).to_event(1))
            law = dist.Normal(s.expand(-1, 2), 1.0).mask(torch.tensor([True, False])).to_event(1)
            pyro.sample("x", law, obs=x)

    result = run(from_pyro(half, guide, X), X, ks=(1, 20_000))
    truth = Normal(torch.zeros((), **DOUBLE), 1.5).log_prob(X[:, 0]).numpy()
    assert (np.abs(result.log_mean_weight - truth) < 6 / np.sqrt(result.effective_sample_sizes)).all()


def test_a_card_names_the_law_of_the_observed_site() -> None:
    card = evaluate_model(from_pyro(model, guide, X), X, k=10, simulated=0)
    assert card.likelihood == "independent Normal of shape (2,); data from -0.7 to 2"
    with pytest.raises(BadInput, match="a Bernoulli law on boolean values"):
        evaluate_model(from_pyro(pixels, pixels_guide, GREY), GREY, k=10, simulated=0)


GREY = torch.tensor([[0.0, 1.0], [0.5, 1.0]])


def pixels(x: torch.Tensor) -> None:
    with pyro.plate("examples", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=z, validate_args=False).to_event(1), obs=x)


def pixels_guide(x: torch.Tensor) -> None:
    with pyro.plate("examples", len(x)):
        pyro.sample("z", dist.Normal(x, 1.0).to_event(1))


def no_plate(x: torch.Tensor) -> None:
    pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
    pyro.sample("x", dist.Normal(0.0, 1.0).expand(x.shape).to_event(2), obs=x)


def no_plate_guide(x: torch.Tensor) -> None:
    pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))


def conditional(x: torch.Tensor) -> None:
    with pyro.plate("examples", len(x)):
        z = pyro.sample("z", dist.Normal(x[:, :1], 1.0).to_event(1))
        s = pyro.sample("s", dist.Normal(z, 0.5).to_event(1))
        pyro.sample("x", dist.Normal(s.expand(-1, 2), 1.0).to_event(1), obs=x)


def half_a_guide(x: torch.Tensor) -> None:
    with pyro.plate("examples", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(1, **DOUBLE), 0.8).to_event(1))


@pytest.mark.parametrize(
    ("pair", "example", "message"),
    [
        ((model, half_a_guide), X, "the latent sites of the model.*see s"),
        ((conditional, guide), X, "latent sites that depend on x"),
        ((no_plate, no_plate_guide), X, "the shape of site z"),
        ((model, guide), X[:1], "at least two observations"),
        ((guide, guide), X, "at least one latent and one observed site"),
    ],
)
def test_pyro_programs_that_do_not_fit_are_named(pair: tuple, example: torch.Tensor, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        from_pyro(*pair, example)


# --- pythae --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["bce", "mse"])
@pytest.mark.parametrize("kind", [(VAE, VAEConfig), (IWAE, IWAEConfig)])
def test_the_evidence_of_a_pythae_model_is_its_own_estimate(loss: str, kind: tuple) -> None:
    """pythae's get_nll, which is a mean log p(x), against ours: 4,000 draws each, 6 standard errors and float32."""
    torch.manual_seed(0)
    made, config = kind
    theirs = made(config(input_dim=(1, 4, 4), latent_dim=2, reconstruction_loss=loss)).eval()
    x = torch.bernoulli(torch.full((3, 1, 4, 4), 0.4))
    with torch.no_grad():
        value = VAE.get_nll(theirs, x, n_samples=4000, batch_size=1000)
    result = run(from_pythae(theirs), x, ks=(1, 4000))
    error = math.sqrt(2 * float((1 / result.effective_sample_sizes).sum())) / 3
    assert abs(value - result.log_mean_weight.mean()) < 6 * error + 1e-3


def test_the_elbo_of_a_pythae_model_is_its_loss() -> None:
    torch.manual_seed(0)
    theirs = VAE(VAEConfig(input_dim=(1, 4, 4), latent_dim=2, reconstruction_loss="mse"))
    wrapped = from_pythae(theirs)
    x = torch.rand(1, 1, 4, 4)
    with torch.no_grad():
        losses = torch.stack([theirs({"data": x}).loss for _ in range(2000)])
    constant = 8 * math.log(2 * math.pi)
    (ours,) = evaluate(objectives.elbo, wrapped, x, n=2000)
    error = math.hypot(float(losses.std()) / 2000**0.5, ours.standard_error)
    assert abs(-float(losses.mean()) - constant - ours.mean) < 6 * error


def test_a_card_names_the_likelihood_of_a_pythae_model() -> None:
    theirs = VAE(VAEConfig(input_dim=(1, 4, 4), latent_dim=2, reconstruction_loss="bce"))
    card = evaluate_model(from_pythae(theirs), torch.zeros(3, 1, 4, 4), k=10, simulated=0)
    assert card.likelihood == "independent Bernoulli of shape (1, 4, 4); all data are 0 or 1"


def test_other_pythae_models_are_refused() -> None:
    with pytest.raises(BadInput, match="the model = 'AE'"):
        from_pythae(AE(AEConfig(input_dim=(1, 4, 4), latent_dim=2)))
    with pytest.raises(BadInput, match="the model = 'Linear'"):
        from_pythae(torch.nn.Linear(2, 2))


def test_the_laws_of_pythae_are_those_of_its_loss() -> None:
    torch.manual_seed(0)
    theirs = VAE(VAEConfig(input_dim=(1, 4, 4), latent_dim=2, reconstruction_loss="mse"))
    law = from_pythae(theirs).law("likelihood", torch.zeros(3, 2))
    assert isinstance(law.base_dist, Normal) and law.event_shape == (1, 4, 4)  # type: ignore[attr-defined]
