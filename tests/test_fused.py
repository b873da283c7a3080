"""The fused path against numpy in float64 and the models' own laws; what it must refuse; what must not change it."""

from __future__ import annotations

import copy
import threading
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import Tensor, nn  # noqa: E402
from torch.distributions import (  # noqa: E402
    Bernoulli,
    ContinuousBernoulli,
    Distribution,
    Independent,
    Laplace,
    Normal,
)
from torch.nn import functional as F  # noqa: E402

from boundcheck.errors import BadInput  # noqa: E402
from boundcheck.evidence import fused_bernoulli  # noqa: E402
from boundcheck.evidence.fused import likelihood_of, weights_of  # noqa: E402
from boundcheck.evidence.fused_bernoulli import CHUNK, BernoulliHead  # noqa: E402
from boundcheck.models.torch_model import TorchModel  # noqa: E402

LATENT, HIDDEN, PIXELS = 3, 20, 37


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reference(weight: Tensor, bias: Tensor, h: Tensor, x: Tensor) -> np.ndarray:
    """sum_i x_i log sigmoid(l_i) + (1 - x_i) log sigmoid(-l_i), from the stored numbers, in float64."""
    logits = h.double().numpy() @ weight.double().numpy().T + bias.double().numpy()
    x = x.double().numpy()
    return (x * -np.logaddexp(0, -logits) + (1 - x) * -np.logaddexp(0, logits)).sum(-1)


def head_problem(pixels: int, hidden: int, scale: float, rows: int, dtype: torch.dtype = torch.float32, seed: int = 0):
    rng = source(seed)
    weight = torch.randn(pixels, hidden, generator=rng, dtype=dtype) * scale
    bias = torch.randn(pixels, generator=rng, dtype=dtype) * scale
    h = torch.randn(rows, hidden, generator=rng, dtype=dtype).tanh()
    x = (torch.rand(rows, pixels, generator=rng) < 0.3).to(dtype)
    return weight, bias, h, x


# --- the numbers ---


@pytest.mark.parametrize("pixels", [1, 15, 16, 17, 100, 784])
@pytest.mark.parametrize("scale", [0.0, 0.01, 0.3, 3.0, 100.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_prob_is_within_its_stated_error(pixels: int, scale: float, dtype: torch.dtype) -> None:
    weight, bias, h, x = head_problem(pixels, 50, scale, 40, dtype)
    head = BernoulliHead(weight, bias)
    truth = reference(weight, bias, h, x)
    bound = head.error_bound(h, torch.from_numpy(truth)).numpy()
    assert np.all(np.abs(head.log_prob(h, x).numpy() - truth) <= bound)
    # Typically far below: what a plain float32 sum would do as well.
    assert np.all(bound <= 1e-4 * torch.finfo(dtype).eps / 1e-7 * (50 * pixels * (1 + scale)))


@pytest.mark.parametrize("pixels_are", [0.0, 1.0])
@pytest.mark.parametrize("logit", [0.0, 1e-3, -5.0, 15.0, 87.0, 89.0, -200.0, 1e4, -1e4])
def test_all_zeros_and_all_ones_at_extreme_logits(pixels_are: float, logit: float) -> None:
    """W = 0: the logits are the bias itself, so the answer is known to a few roundings, 784 times over."""
    head = BernoulliHead(torch.zeros(784, 4), torch.full((784,), logit))
    value = head.log_prob(torch.ones(3, 4), torch.full((3, 784), pixels_are)).numpy()
    truth = -784 * np.logaddexp(0, -logit if pixels_are else logit)
    np.testing.assert_allclose(value, truth, rtol=5e-7, atol=784 * 6e-8)


def test_typical_images_are_good_to_a_ten_thousandth_of_a_nat() -> None:
    weight, bias, h, x = head_problem(784, 200, 0.15, 300)
    bias = bias - 3
    value = BernoulliHead(weight, bias).log_prob(h, x).numpy()
    truth = reference(weight, bias, h, x)
    assert np.abs(truth).mean() > 100
    assert np.abs(value - truth).max() < 5e-4


def test_a_single_wrong_pixel_among_good_ones_is_seen() -> None:
    """The product of sixteen factors overflows; the rows that do must not lose the others' small terms."""
    bias = torch.full((784,), -2.0)
    bias[5] = 500.0
    x = torch.zeros(4, 784)
    x[2, 5] = 1.0
    value = BernoulliHead(torch.zeros(784, 2), bias).log_prob(torch.ones(4, 2), x).numpy()
    good = -783 * np.logaddexp(0, -2.0)
    np.testing.assert_allclose(value, good - np.array([500.0, 500.0, 0.0, 500.0]), rtol=0, atol=3e-4)


def test_flipping_pixels_and_logits_together_changes_nothing() -> None:
    weight, bias, h, x = head_problem(50, 8, 1.0, 30)
    assert torch.equal(BernoulliHead(weight, bias).log_prob(h, x), BernoulliHead(-weight, -bias).log_prob(h, 1 - x))


def test_pixels_add_up() -> None:
    weight, bias, h, x = head_problem(60, 8, 1.0, 30, torch.float64)
    whole = BernoulliHead(weight, bias).log_prob(h, x)
    parts = [BernoulliHead(weight[s], bias[s]).log_prob(h, x[:, s]) for s in (slice(0, 7), slice(7, 60))]
    torch.testing.assert_close(whole, sum(parts), rtol=1e-13, atol=0)


@pytest.mark.parametrize("rows", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 7])
def test_one_example_for_all_rows_is_the_same_as_row_by_row(rows: int) -> None:
    weight, bias, h, x = head_problem(40, 8, 1.0, rows)
    head = BernoulliHead(weight, bias)
    together = head.at(x[0])(h)
    assert together.shape == (rows,) and together.dtype == torch.float64
    torch.testing.assert_close(together, head.log_prob(h, x[:1].expand(rows, -1)), rtol=1e-6, atol=1e-5)


def test_a_nan_stays_in_its_row() -> None:
    weight, bias, h, x = head_problem(40, 8, 1.0, 5)
    head = BernoulliHead(weight, bias)
    clean = head.log_prob(h, x)
    h[3, 2] = torch.nan
    value = head.log_prob(h, x)
    assert value.isnan().tolist() == [False, False, False, True, False]
    torch.testing.assert_close(value[:3], clean[:3])


def test_without_onednn_the_numbers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias, h, x = head_problem(40, 8, 1.0, 50)
    usual = BernoulliHead(weight, bias).log_prob(h, x)
    monkeypatch.setattr(fused_bernoulli, "_ONEDNN", None)
    torch.testing.assert_close(BernoulliHead(weight, bias).log_prob(h, x), usual, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(fused_bernoulli.linear(h, weight, bias, "tanh"), (h @ weight.T + bias).tanh())


# --- models ---


def bernoulli(logits: Tensor) -> Distribution:
    return Independent(Bernoulli(logits=logits), logits.ndim - 1)


class VAE(nn.Module):
    """Gaussian prior and encoder; the decoder's law is made by a function of the module and z."""

    def __init__(self, decode, prior: Distribution | None = None, event: tuple[int, ...] = (PIXELS,)) -> None:
        super().__init__()
        self.hidden = nn.Linear(LATENT, HIDDEN)
        self.middle = nn.Linear(HIDDEN, HIDDEN)
        self.last = nn.Linear(HIDDEN, PIXELS)
        self.skip = nn.Linear(HIDDEN + LATENT, PIXELS)
        self.direct = nn.Linear(LATENT, PIXELS, bias=False)
        self.square = nn.Linear(LATENT, LATENT)
        self.encode = nn.Linear(PIXELS, 2 * LATENT)
        self.decode, self.event = decode, event
        self.own_prior = prior or Independent(Normal(torch.zeros(LATENT), torch.ones(LATENT)), 1)

    def prior(self) -> Distribution:
        return self.own_prior

    def encoder(self, x: Tensor) -> Distribution:
        mean, log_scale = self.encode(x.flatten(1)).chunk(2, 1)
        return Independent(Normal(mean, log_scale.exp()), 1)

    def decoder(self, z: Tensor) -> Distribution:
        return self.decode(self, z)


def make(decode, **options) -> VAE:
    torch.manual_seed(1)
    return VAE(decode, **options).eval()


def images(rows: int = 6, event: tuple[int, ...] = (PIXELS,), dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.rand(rows, *event, generator=source(2)) < 0.3).to(dtype)


def own_log_weights(model: nn.Module, x: Tensor, noise: Tensor) -> Tensor:
    """log p(x,z) - log q(z|x) by torch's own laws, for noise of shape (examples, draws, latent)."""
    with torch.no_grad():
        encoder = model.encoder(x)
        z = encoder.base_dist.loc[:, None] + encoder.base_dist.scale[:, None] * noise
        law = model.decoder(z.flatten(0, 1))
        likelihood = law.log_prob(x.repeat_interleave(noise.shape[1], 0)).view(z.shape[:2])
        log_q = encoder.log_prob(z.transpose(0, 1)).T
        return likelihood + model.prior().log_prob(z) - log_q


def deep(m: VAE, z: Tensor) -> Distribution:
    h = m.hidden(z)
    for act in (torch.tanh, F.relu, torch.sigmoid, F.silu, F.softplus, F.gelu, torch.sin):
        h = m.middle(act(h))
    return bernoulli(m.last(F.leaky_relu(F.layer_norm(h, (HIDDEN,)), 0.2)))


RAW = torch.randn(PIXELS, LATENT, generator=source(3))
CHAINS = {
    "functions": lambda m, z: bernoulli(m.last(torch.tanh(m.hidden(z)))),
    "methods": lambda m, z: bernoulli(m.last(m.hidden(z).relu())),
    "in place": lambda m, z: bernoulli(m.last(F.relu(m.hidden(z), inplace=True))),
    "two activations": lambda m, z: bernoulli(m.last(m.hidden(z).tanh().relu().exp())),
    "deep": deep,
    "no hidden layer, no bias": lambda m, z: bernoulli(m.direct(z)),
    "no activation": lambda m, z: bernoulli(m.last(m.hidden(z))),
    "activation first": lambda m, z: bernoulli(m.direct(z.tanh())),
    "dropout, switched off": lambda m, z: bernoulli(m.last(F.dropout(m.hidden(z), 0.5, training=m.training))),
    "a tensor of no module": lambda m, z: bernoulli(F.linear(z, RAW)),
}
LIKELIHOODS_ONLY = {
    "skip connection": lambda m, z: bernoulli(m.skip(torch.cat([m.hidden(z).tanh(), z], 1))),
    "residual": lambda m, z: bernoulli(m.last(m.hidden(z).tanh() + m.hidden(z))),
    "branch on a size": lambda m, z: bernoulli(m.last(m.hidden(z + 0 if len(z) > 2 else z - 0))),
    "normalised": lambda m, z: bernoulli(m.direct(z / z.norm(dim=1, keepdim=True))),
}


OFF_CENTRE = Independent(Normal(torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.5, 2.0, 1.0])), 1)


@pytest.mark.parametrize("style", CHAINS)
@pytest.mark.parametrize(
    "prior", [None, Independent(Normal(torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.5, 2.0, 1.0])), 1)]
)
def test_whole_weights_are_those_of_the_models_own_laws(style: str, prior: Distribution | None) -> None:
    model, x = make(CHAINS[style], prior=prior), images()
    fused = weights_of(model, x)
    assert fused is not None
    noise = torch.randn(len(x), 700, LATENT, generator=source(4))
    with torch.inference_mode():
        block = fused.block(model.encoder(x), x)
        assert block is not None and len(block) == len(x)
        values = torch.stack([block[i](noise[i]) for i in range(len(x))])
    assert values.dtype == torch.float64
    torch.testing.assert_close(values, own_log_weights(model, x, noise).double(), rtol=2e-5, atol=2e-4)


def test_whole_weights_in_float64_are_good_to_rounding() -> None:
    model = make(CHAINS["functions"]).double()
    model.own_prior = Independent(Normal(torch.zeros(LATENT).double(), torch.ones(LATENT).double()), 1)
    x = images(dtype=torch.float64)
    fused = weights_of(model, x)
    assert fused is not None
    noise = torch.randn(len(x), 30, LATENT, generator=source(4), dtype=torch.float64)
    block = fused.block(model.encoder(x), x)
    assert block is not None
    values = torch.stack([block[i](noise[i]) for i in range(len(x))])
    torch.testing.assert_close(values.detach(), own_log_weights(model, x, noise), rtol=1e-12, atol=1e-12)


def test_whole_weights_in_float32_are_near_the_truth_of_a_large_model() -> None:
    """784 pixels: the same weights in float64, through torch's own laws, differ by less than a thousandth of a nat."""
    torch.manual_seed(5)
    model = VAE(lambda m, z: bernoulli(m.last(torch.tanh(m.middle(torch.tanh(m.hidden(z)))))))
    model.hidden, model.middle, model.last = nn.Linear(50, 200), nn.Linear(200, 200), nn.Linear(200, 784)
    model.encode = nn.Linear(784, 100)
    model.own_prior = Independent(Normal(torch.zeros(50), torch.ones(50)), 1)
    with torch.no_grad():
        model.last.weight.mul_(6)
        model.last.bias.sub_(3)
    x = images(2, (784,))
    noise = torch.randn(2, 600, 50, generator=source(4))
    fused = weights_of(model, x)
    assert fused is not None
    block = fused.block(model.encoder(x), x)
    assert block is not None
    values = torch.stack([block[i](noise[i]) for i in range(2)]).detach()
    exact = copy.deepcopy(model).double()
    exact.own_prior = Independent(Normal(torch.zeros(50).double(), torch.ones(50).double()), 1)
    truth = own_log_weights(exact, x.double(), noise.double())
    assert truth.std() > 1
    assert (values - truth).abs().max() < 1e-3


@pytest.mark.parametrize("style", [*CHAINS, *LIKELIHOODS_ONLY])
def test_likelihoods_are_those_of_the_models_own_laws(style: str) -> None:
    model, x = make((CHAINS | LIKELIHOODS_ONLY)[style]), images(50)
    fused = likelihood_of(model, x)
    assert fused is not None
    z = 2 * torch.randn(50, LATENT, generator=source(4))
    with torch.inference_mode():
        torch.testing.assert_close(fused(z, x), model.decoder(z).log_prob(x).double(), rtol=1e-5, atol=1e-4)
        one = x[:1].expand(50, -1)
        torch.testing.assert_close(fused(z, one), model.decoder(z).log_prob(one).double(), rtol=1e-5, atol=1e-4)


def test_rows_may_share_examples() -> None:
    model, x = make(CHAINS["functions"]), images(5)
    fused, which = likelihood_of(model, x), torch.arange(50) // 10
    assert fused is not None
    z = torch.randn(50, LATENT, generator=source(4))
    expected = model.decoder(z).log_prob(x[which]).double()
    torch.testing.assert_close(fused(z, x, which), expected.detach(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(fused(z, x[:1]), fused(z, x, 0 * which), rtol=1e-6, atol=1e-5)
    x[3, 0] = 0.5
    with pytest.raises(BadInput, match=r"x\[3\]"):
        fused(z, x, which)


def test_one_example_that_is_shown_many_times_is_one_example() -> None:
    """A head that reads x by the numbers of its rows would read past the end of the only one."""
    model, which = make(CHAINS["functions"]), torch.arange(50) // 10
    x = images(1).expand(5, -1)
    fused = likelihood_of(model, x)
    assert fused is not None
    given: list[tuple[int, Tensor | None]] = []

    class Head:
        pixels, weight = PIXELS, model.last.weight

        def log_prob(self, h: Tensor, pixels: Tensor, which: Tensor | None = None) -> Tensor:
            given.append((len(pixels), which))
            return h[:, 0]

    grey = torch.full((1, PIXELS), 0.5).expand(5, -1)
    with pytest.raises(BadInput, match=r"0\.5"):
        fused(torch.zeros(50, LATENT), grey, which)
    fused.head = Head()  # type: ignore[assignment]
    fused(torch.zeros(50, LATENT), x, which)
    assert given == [(1, None)]


@pytest.mark.parametrize("style", LIKELIHOODS_ONLY)
def test_a_decoder_that_is_no_chain_has_no_whole_weights(style: str) -> None:
    assert weights_of(make(LIKELIHOODS_ONLY[style]), images()) is None


def test_images_keep_their_shape() -> None:
    torch.manual_seed(1)
    layer = nn.Linear(LATENT, 12)
    model = TorchModel(
        prior=lambda: Independent(Normal(torch.zeros(LATENT), 1.0), 1),
        encoder=lambda x: Independent(Normal(x.flatten(1)[:, :LATENT], 0.5), 1),
        decoder=lambda z: Independent(Bernoulli(logits=layer(z).view(-1, 1, 3, 4)), 3),
    )
    x = images(5, (1, 3, 4))
    fused = likelihood_of(model, x)
    assert fused is not None
    z = torch.randn(5, LATENT, generator=source(4))
    torch.testing.assert_close(fused(z, x), model.law("likelihood", z).log_prob(x).detach().double())
    assert weights_of(model, x) is not None


# --- what must be refused ---


class Shifted(Bernoulli):
    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) + 1


def clamped_in_place(m: VAE, z: Tensor) -> Distribution:
    return bernoulli(m.direct(z).clamp_(-100, 100))


def written_behind_the_counter(m: VAE, z: Tensor) -> Distribution:
    logits = m.direct(z)
    logits.data.clamp_(-100, 100)
    return bernoulli(logits)


def clipped_by_numpy(m: VAE, z: Tensor) -> Distribution:
    logits = m.direct(z)
    memory = np.asarray(logits.detach())
    np.clip(memory, -100, 100, out=memory)
    return bernoulli(logits)


def clipped_through_another_tensor(m: VAE, z: Tensor) -> Distribution:
    logits = m.direct(z)
    torch.empty(0).set_(logits.untyped_storage(), 0, logits.shape).clamp_(-100, 100)
    return bernoulli(logits)


def few_at_a_time(m: VAE, z: Tensor) -> Distribution:
    logits = m.direct(z)
    return bernoulli(logits.clamp(-100, 100) if len(logits[logits.abs() > 100]) else logits)


def clamped_if_large(h: Tensor) -> Tensor:
    return h.clamp(-100.0, 100.0) if bool((h.abs() > 100).any()) else h


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    scripted = torch.jit.script(clamped_if_large)


class Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, logits: Tensor) -> Tensor:
        return logits.clamp(-100, 100) if logits.abs().max() > 100 else logits


def other_density(m: VAE, z: Tensor) -> Distribution:
    law = bernoulli(m.direct(z))
    own = law.log_prob
    law.log_prob = lambda x: own(x) - (law.base_dist.logits.abs().amax(1) > 100).float()  # type: ignore[method-assign]
    return law


SECRETIVE = {
    "a branch on a value": lambda m, z: bernoulli(m.last(m.hidden(z if z.sum() > 0 else -z))),
    "a branch on a logit": lambda m, z: bernoulli((lambda a: a if a.max() < 100 else 0 * a)(m.direct(z))),
    "a branch on equality": lambda m, z: bernoulli(
        m.direct(z) if torch.equal(z, z.clamp(-100, 100)) else m.direct(0 * z)
    ),
    "a branch on a list": lambda m, z: bernoulli((lambda a: a if max(a[0].tolist()) < 100 else 0 * a)(m.direct(z))),
    "a branch on how many": few_at_a_time,
    "a function of numpy": clipped_by_numpy,
    "another tensor of the same memory": clipped_through_another_tensor,
    "a script after the last layer": lambda m, z: bernoulli(scripted(m.direct(z))),
    "a script before it": lambda m, z: bernoulli(m.last(scripted(m.hidden(z)))),
    "an autograd function": lambda m, z: bernoulli(Clamp.apply(m.direct(z))),
    "a density of its own": other_density,
    "a row for a weight": lambda m, z: bernoulli(F.linear(z, RAW[0])[:, None]),
}
"""Nothing of this shows at a few latents."""
STRANGERS = {
    **SECRETIVE,
    "clamped logits": lambda m, z: bernoulli(m.direct(z).clamp(-100, 100)),
    "clamped in place": clamped_in_place,
    "written behind the counter": written_behind_the_counter,
    "a temperature": lambda m, z: bernoulli(m.direct(z) * 1.0),
    "reordered pixels": lambda m, z: bernoulli(m.direct(z).flip(1)),
    "probabilities": lambda m, z: Independent(Bernoulli(probs=m.direct(z).sigmoid()), 1),
    "another law": lambda m, z: Independent(ContinuousBernoulli(logits=m.direct(z)), 1),
    "a subclass": lambda m, z: Independent(Shifted(logits=m.direct(z)), 1),
    "a Gaussian": lambda m, z: Independent(Normal(m.direct(z), 1.0), 1),
    "a layer that is used twice": lambda m, z: bernoulli(m.direct(m.square(z) + m.direct(z)[:, :LATENT])),
    "a convolution": lambda m, z: bernoulli(F.conv1d(z.unsqueeze(1), RAW[:, None, :])[:, :, 0]),
    "a product": lambda m, z: bernoulli(z @ m.direct.weight.T),
    "bfloat16": lambda m, z: bernoulli(F.linear(z.bfloat16(), m.direct.weight.bfloat16())),
}


@pytest.mark.parametrize("style", STRANGERS)
def test_other_decoders_are_left_to_their_own_laws(style: str) -> None:
    assert likelihood_of(make(STRANGERS[style]), images()) is None
    assert weights_of(make(STRANGERS[style]), images()) is None


def test_other_priors_and_encoders_have_no_whole_weights() -> None:
    x = images()
    assert weights_of(make(CHAINS["functions"], prior=Independent(Laplace(torch.zeros(LATENT), 1.0), 1)), x) is None
    model = make(CHAINS["functions"])
    fused = weights_of(model, x)
    assert fused is not None and likelihood_of(model, x) is not None
    assert fused.block(Independent(Laplace(torch.zeros(len(x), LATENT), 1.0), 1), x) is None


def test_grey_pixels_are_refused_as_the_plain_path_refuses_them() -> None:
    model, x = make(CHAINS["functions"]), images()
    grey = x.clone()
    grey[4, 7] = 0.5
    assert weights_of(model, grey) is None
    fused = likelihood_of(model, grey)
    assert fused is not None
    z = torch.zeros(len(x), LATENT)
    plain = TorchModel.wrap(model)
    with pytest.raises(BadInput) as own:
        plain.log_prob("likelihood", plain.law("likelihood", z), grey, (PIXELS,), lambda row: f"x[{row}]")
    with pytest.raises(BadInput) as ours:
        fused(z, grey)
    assert str(ours.value) == str(own.value)
    assert ours.value.argument == "x[4]"


def test_other_shapes_meet_the_models_own_errors() -> None:
    model, x = make(CHAINS["functions"]), images()
    fused = likelihood_of(model, x)
    assert fused is not None
    with pytest.raises(BadInput, match="event shape"):
        fused(torch.zeros(6, LATENT), x[:, 1:])
    with pytest.raises(BadInput, match="shape given to decoder"):
        fused(torch.zeros(6, LATENT + 1), x)
    assert likelihood_of(model, x[:, 1:]) is None


def test_a_broken_model_is_no_error_here() -> None:
    def fail(m: VAE, z: Tensor) -> Distribution:
        raise ValueError("broken")

    assert likelihood_of(make(fail), images()) is None


# --- what must not matter ---


def test_weights_that_change_later_are_not_ignored() -> None:
    model, x = make(CHAINS["functions"]), images()
    fused, z = likelihood_of(model, x), torch.ones(len(x), LATENT)
    assert fused is not None
    before = fused(z, x)
    with torch.no_grad():
        model.last.bias.add_(1.0)
        expected = model.decoder(z).log_prob(x).double()
    torch.testing.assert_close(fused(z, x), expected)
    assert not torch.allclose(before, expected)


def test_a_decoder_that_takes_another_way_is_followed() -> None:
    """Few rows go another way: the stop is never reached, and the law that comes back is used."""

    def decode(m: VAE, z: Tensor) -> Distribution:
        return bernoulli(m.direct(z) if len(z) > 2 else 0 * z[:, :1].expand(-1, PIXELS))

    x = images()
    fused = likelihood_of(make(decode), x)
    assert fused is not None
    torch.testing.assert_close(fused(torch.ones(2, LATENT), x[:2]), torch.full((2,), -PIXELS * np.log(2)).double())


def test_nothing_is_left_behind() -> None:
    model, x = make(CHAINS["functions"]), images()
    state = torch.get_rng_state()
    fused = weights_of(model, x)
    assert fused is not None
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.last._forward_hooks and not model.last._forward_pre_hooks
    assert model.decoder(torch.zeros(1, LATENT)).base_dist.logits.requires_grad


def test_two_threads_do_not_meet() -> None:
    model, x = make(CHAINS["functions"]), images(20)
    fused = likelihood_of(model, x)
    assert fused is not None
    zs = [torch.randn(20, LATENT, generator=source(i)) for i in range(8)]
    alone = [fused(z, x) for z in zs]
    met: dict[int, list[Tensor]] = {}
    threads = [
        threading.Thread(target=lambda i=i: met.update({i: [fused(z, x) for _ in range(20) for z in zs]}))
        for i in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for values in met.values():
        assert len(values) == 160
        for value, expected in zip(values, alone * 20, strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-5)
