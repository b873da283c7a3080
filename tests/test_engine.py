"""The log-weights engine: results that depend on the job alone, whatever the machine and however it is cut.

Statistical tests allow six standard errors, so a false alarm has probability 2e-9 each and below 1e-6 together.
"""

from __future__ import annotations

import math
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Bernoulli, Categorical, Distribution, HalfNormal, Independent, Laplace, Normal
from torch_models import LinearGaussian, as_torch, exact_encoder

from boundcheck.errors import BadInput
from boundcheck.evidence import job as job_module
from boundcheck.evidence import log_weights
from boundcheck.evidence import streams as streams_module
from boundcheck.evidence.accumulators import IwaeGroups, Tail, WeightSums
from boundcheck.evidence.engine import WeightRun, run
from boundcheck.evidence.intervals import Wealth
from boundcheck.evidence.job import Job
from boundcheck.evidence.streams import Layout, Purpose, device_normals, generator, philox4x32, scattered_seed
from boundcheck.models.torch_model import TorchModel

SIX = 6.0
LINEAR = LinearGaussian(2, 3, seed=5)
FINITE = oracle.random_model(random.Random(11), x=2, z=3, xt=2, denominator=20)


def laplace_encoder() -> TorchModel:
    """A latent that torch has to draw: its law is no Gaussian."""
    return TorchModel(
        prior=lambda: Independent(Normal(torch.zeros(2), 1.0), 1),
        encoder=lambda x: Independent(Laplace(x[:, :2] / 2, 0.8), 1),
        decoder=lambda z: Independent(Normal(torch.cat([z, z.sin()], -1), 1.0), 1),
    )


def bernoulli_net(dtype: torch.dtype = torch.float32) -> TorchModel:
    generator = torch.Generator().manual_seed(3)
    a, b, c = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((6, 4), (4, 5), (5, 6)))
    return TorchModel(
        prior=lambda: Independent(Normal(torch.zeros(4, dtype=dtype), 1.0), 1),
        encoder=lambda x: Independent(Normal((x - 0.5) @ a, torch.full((4,), 0.6, dtype=dtype)), 1),
        decoder=lambda z: Independent(Bernoulli(logits=torch.tanh(z @ b) @ c), 1),
    )


def bits(count: int) -> torch.Tensor:
    return (torch.arange(count * 6).reshape(count, 6) * 7 % 5 > 2).float()


MODELS: dict[str, tuple[Callable[[], TorchModel], Callable[[int], torch.Tensor]]] = {
    "diagonal Gaussian encoder": (LINEAR.torch, lambda n: torch.linspace(-1, 1, 3 * n).double().reshape(n, 3)),
    "full Gaussian encoder": (
        lambda: exact_encoder(LINEAR),
        lambda n: torch.linspace(-1, 1, 3 * n).double().reshape(n, 3),
    ),
    "Bernoulli decoder, float32": (bernoulli_net, bits),
    "Laplace encoder, float32": (laplace_encoder, lambda n: torch.linspace(-1, 1, 4 * n).reshape(n, 4)),
    "finite": (lambda: as_torch(FINITE), lambda n: torch.arange(n) % 2),
}


def same(a: WeightRun, b: WeightRun, relative: float = 1e-6, absolute: float = 1e-7) -> None:
    """Equal estimates; what depends on differences of weights may feel their rounding ten times as much."""
    for name, slack in (("iwae", 1), ("log_mean_weight", 1), ("tail", 1), ("iwae_errors", 10)):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=slack * relative, atol=absolute)
    np.testing.assert_allclose(a.effective_sample_sizes, b.effective_sample_sizes, rtol=10 * relative)
    assert a.groups == b.groups
    assert a.failed == b.failed


# --- random streams ---


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers that come with Random123, the authors' own library
        ((0,) * 4, (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers(counter: tuple, key: tuple, expected: str) -> None:
    words = philox4x32([torch.tensor(word) for word in counter], key)
    assert " ".join(f"{int(word):08x}" for word in words) == expected


def test_normals_of_a_device_are_normal_and_belong_to_their_place() -> None:
    places = torch.arange(200)
    noise = device_normals(7, Purpose.WEIGHTS, places[:, None], places, 6, torch.float64)
    count = noise.numel()
    assert abs(float(noise.mean())) < SIX / math.sqrt(count)
    assert abs(float(noise.square().mean()) - 1) < SIX * math.sqrt(2 / count)
    assert abs(float(noise.pow(4).mean()) - 3) < SIX * math.sqrt(96 / count)
    flat = noise.flatten(0, 1)
    correlations = torch.corrcoef(flat.T) - torch.eye(6)
    assert float(correlations.abs().max()) < SIX / math.sqrt(len(flat))
    for other in (
        device_normals(8, Purpose.WEIGHTS, places[:, None], places, 6, torch.float64),
        device_normals(7, Purpose.PILOT, places[:, None], places, 6, torch.float64),
        noise.transpose(0, 1),
    ):
        assert abs(float((noise * other).mean())) < SIX / math.sqrt(count / 2)
    part = device_normals(7, Purpose.WEIGHTS, places[5:6, None], places[50:60], 6, torch.float64)
    assert torch.equal(part[0], noise[5, 50:60])


def test_streams_of_different_places_differ() -> None:
    seen = set()
    for seed in (0, 1, 2**62):
        for purpose in Purpose:
            for example in range(3):
                for block in range(3):
                    seen.add(float(generator(seed, purpose, example, block).standard_normal()))
    assert len(seen) == 3 * len(Purpose) * 9
    assert len({scattered_seed(1, Purpose.WEIGHTS, unit) for unit in range(5000)}) == 5000


@given(examples=st.integers(1, 300), samples=st.integers(1, 20_000), entries=st.sampled_from([1, 784, 10**6]))
def test_a_layout_covers_every_draw_once(examples: int, samples: int, entries: int) -> None:
    layout = Layout.of(examples, samples, entries)
    covered = np.zeros((examples, -(-samples // layout.span)), dtype=int)
    for index, item in enumerate(layout):
        assert item.index == index
        assert item.samples.start % layout.span == 0
        covered[item.examples, item.samples.start // layout.span] += item.samples.stop - item.samples.start
    assert (covered.sum(1) == samples).all()
    assert sum(item.rows for item in layout) == examples * samples
    assert max(item.rows for item in layout) <= 1 << 18


# --- accumulators ---


@given(
    draws=st.integers(1, 60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    ks=st.sets(st.integers(1, 70), min_size=1, max_size=4),
    zeros=st.booleans(),
)
@settings(max_examples=60)
def test_spans_merge_into_what_one_pass_gives(draws: int, cuts: list[int], ks: set[int], zeros: bool) -> None:
    weights = np.random.default_rng(draws).normal(size=(draws, 3)) * 3
    if zeros:
        weights[:: max(1, draws // 3), 1] = -math.inf
    sizes = sorted(ks)
    places = sorted({0, draws, *(cut for cut in cuts if cut < draws)})
    states: dict[str, list] = {"groups": [], "sums": [], "tail": []}
    for start, stop in pairwise(places):
        made = {"groups": IwaeGroups(sizes, 3, start), "sums": WeightSums(3, start), "tail": Tail(4, 3, start)}
        for name, accumulator in made.items():
            middle = (start + stop) // 2
            for piece in (weights[start:middle], weights[middle:stop]):
                if len(piece):
                    accumulator.add(torch.tensor(piece))
            states[name].append(accumulator.state())
    groups = IwaeGroups.merged(states["groups"])
    assert groups.counts == [draws // k for k in sizes]
    for row, k in enumerate(sizes):
        whole = weights[: draws // k * k].reshape(-1, k, 3)
        if len(whole):
            with np.errstate(divide="ignore"):
                values = np.log(np.exp(whole).mean(1))
            np.testing.assert_allclose(groups.means()[row], values.mean(0), rtol=1e-11)
            if len(values) > 1:
                finite = np.isfinite(values).all(0)
                errors = values[:, finite].std(0, ddof=1) / math.sqrt(len(values))
                np.testing.assert_allclose(groups.errors()[row][finite], errors, rtol=1e-9, atol=1e-12)
    sums = WeightSums.merged(states["sums"])
    w = np.exp(weights)
    np.testing.assert_allclose(np.exp(sums.log_mean()), w.mean(0), rtol=1e-11)
    some = w.sum(0) > 0
    np.testing.assert_allclose(
        sums.effective_sample_sizes()[some], (w.sum(0) ** 2)[some] / (w**2).sum(0)[some], rtol=1e-11
    )
    largest = np.sort(np.concatenate([weights, np.full((4, 3), -math.inf)]), axis=0)[::-1][:4]
    np.testing.assert_array_equal(Tail.merged(states["tail"]).largest, largest)


def test_spans_out_of_order_are_refused() -> None:
    states = []
    for start in (0, 7):
        groups = IwaeGroups((2,), 1, start)
        groups.add(torch.zeros(5, 1, dtype=torch.float64))
        states.append(groups.state())
    with pytest.raises(BadInput, match="consecutive spans"):
        IwaeGroups.merged(states)


# --- the same numbers, however the work is cut ---


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("examples", [1, 7])
def test_chunk_and_threads_change_nothing(name: str, examples: int) -> None:
    model, data = MODELS[name]
    options = {"ks": (1, 3, 50, 700), "seed": 4}
    reference = run(model(), data(examples), threads=1, **options)
    for changed in ({"chunk": 1 << 14}, {"chunk": 61}, {"threads": 2}, {"threads": 3, "chunk": 300}):
        same(reference, run(model(), data(examples), **(options | {"threads": 1} | changed)))


def test_many_spans_and_few_are_one_job(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = LINEAR.torch(), torch.linspace(-1, 1, 6).double().reshape(2, 3)
    wide = run(model, x, (1, 30, 9000), threads=1)
    monkeypatch.setattr(streams_module, "_SMALLEST_ITEM", 1024)
    assert Layout.of(2, 9000).spans == 9
    same(wide, run(model, x, (1, 30, 9000), threads=2), 1e-12)


def test_draws_do_not_depend_on_the_number_of_samples_or_of_later_examples() -> None:
    x = torch.linspace(-1, 1, 30).double().reshape(10, 3)
    few = torch.cat([block for _, block in log_weights(LINEAR.torch(), x[:4], 300)], 1)
    many = torch.cat([block for _, block in log_weights(LINEAR.torch(), x, 700)], 1)
    torch.testing.assert_close(few, many[:300, :4], rtol=1e-12, atol=1e-12)


def test_log_weights_are_those_of_the_model() -> None:
    """Against the densities written out, at the draws that the engine must have made."""
    x = torch.linspace(-1, 1, 6).double().reshape(2, 3)
    values = torch.cat([block for _, block in log_weights(LINEAR.torch(), x, 300, seed=9)], 1)
    model = LINEAR
    for example in range(2):
        noise = np.concatenate(
            [generator(9, Purpose.WEIGHTS, example, start).standard_normal((256, 2)) for start in (0, 256)]
        )[:300]
        row = x[example].numpy()
        z = model.a @ row + model.c + np.sqrt(model.v) * noise
        gap = row - z @ model.w.T - model.b
        log_p = -0.5 * (gap**2).sum(1) / model.s**2 - 0.5 * (z**2).sum(1)
        log_q = -0.5 * (noise**2).sum(1) - 0.5 * np.log(model.v).sum()
        expected = log_p - log_q - 1.5 * math.log(2 * math.pi * model.s**2)
        np.testing.assert_allclose(values[:, example], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["finite", "Laplace encoder, float32"])
def test_draws_of_other_laws_are_independent(name: str) -> None:
    model, data = MODELS[name]
    values = torch.cat([block for _, block in log_weights(model(), data(4), 4000)], 1).numpy()
    series = values - values.mean(0)
    correlations = np.corrcoef(series.T) - np.eye(4)
    assert np.abs(correlations).max() < SIX / math.sqrt(4000)
    for lag in (1, 256):
        correlation = (series[lag:] * series[:-lag]).mean(0) / series.var(0)
        assert np.abs(correlation).max() < SIX / math.sqrt(4000 - lag)


def test_the_random_state_and_the_settings_of_torch_are_left_alone() -> None:
    before = torch.get_rng_state(), torch.get_num_threads(), Distribution._validate_args
    model, data = MODELS["Laplace encoder, float32"]
    run(model(), data(5), (1, 10), threads=2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), Distribution._validate_args) == before[1:]


def test_progress_counts_draws_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    run(LINEAR.torch(), np.zeros((100, 3)), (1, 90), progress=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (9000, 9000)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) > 1


# --- estimates ---


def test_every_estimate_of_the_curve_is_unbiased() -> None:
    x = torch.zeros(400, dtype=torch.long)
    result = run(as_torch(FINITE), x, (1, 2, 5, 20), seed=1)
    assert result.groups == (20, 10, 4, 1)
    for row, k in enumerate(result.ks[:3]):
        error = math.sqrt(float((result.iwae_errors[row] ** 2).sum())) / 400
        assert abs(result.iwae[row].mean() - float(oracle.iwae(FINITE, 0, k))) < SIX * error
        assert error < 0.02
    assert np.allclose(result.iwae[-1], result.log_mean_weight)


@pytest.mark.parametrize("dimension", [1, 2, 5, 20, 50, 100, 200])
def test_linear_gaussian_models_of_every_dimension_agree_with_closed_forms(dimension: int) -> None:
    """With the exact posterior each log-weight is log p(x); with one twice as wide in variance IWAE rises towards it.

    For q = N(mu, 2 S) log w has variance D/8 and E w^2 / (E w)^2 = (4/3)^(D/2) exists; six standard errors.
    """
    model = LinearGaussian(dimension, dimension + 1, seed=dimension)
    x = np.random.default_rng(dimension).normal(size=(3, dimension + 1))
    truth = [model.log_evidence(row) for row in x]
    exact = exact_encoder(model)
    result = run(exact, x, (1, 10), threads=1)
    for row in range(2):
        assert result.iwae[row] == pytest.approx(truth, rel=1e-9, abs=1e-7)

    def wide(rows: torch.Tensor) -> Distribution:
        law = exact._functions["encoder"](rows)
        return torch.distributions.MultivariateNormal(law.loc, scale_tril=law.scale_tril * math.sqrt(2))

    rough = TorchModel(prior=exact._functions["prior"], decoder=exact._functions["likelihood"], encoder=wide)
    curve = run(rough, x, (1, 10), k=2000, threads=1)
    # ELBO = log p(x) - KL(q || posterior), and KL = D (1 - log 2) / 2
    elbo = np.array(truth) - dimension * (1 - math.log(2)) / 2
    assert (np.abs(curve.iwae[0] - elbo) < SIX * curve.iwae_errors[0]).all()
    assert curve.iwae_errors[0].max() < 0.3
    noise = SIX * np.hypot(curve.iwae_errors[0], curve.iwae_errors[1])
    assert (curve.iwae[1] > curve.iwae[0] - noise).all()
    assert (curve.iwae[1] < np.array(truth) + SIX * curve.iwae_errors[1]).all()


# --- what goes wrong ---


def test_weights_of_zero_are_no_failure() -> None:
    model = TorchModel(
        prior=lambda: HalfNormal(torch.tensor(1.0)),
        encoder=lambda x: Normal(x, 0.5),
        decoder=lambda z: Normal(z, 1.0),
    )
    result = run(model, torch.tensor([0.0, -50.0]), (1, 40))
    assert not result.failed
    assert result.iwae[0].tolist() == [-math.inf, -math.inf]
    assert math.isfinite(result.iwae[1, 0])
    assert result.iwae[1, 1] == -math.inf
    assert result.effective_sample_sizes[1] == 0


@pytest.mark.parametrize("validate", [None, True])
@pytest.mark.parametrize("where", ["encoder", "decoder"])
def test_an_example_that_gives_nan_is_named_and_the_others_are_evaluated(where: str, validate: bool | None) -> None:
    def broken(rows: torch.Tensor, role: str) -> torch.Tensor:
        return torch.where(rows > 1.2, math.nan, rows) if role == where else rows

    def model(spoiled: bool) -> TorchModel:
        f = broken if spoiled else lambda rows, role: rows
        return TorchModel(
            prior=lambda: Normal(0.0, 1.0),
            encoder=lambda x: Normal(f(x, "encoder"), 0.01, validate_args=validate),
            decoder=lambda z: Normal(f(z, "decoder"), 1.0, validate_args=validate),
        )

    x = torch.tensor([0.0, 1.0, 1.3, -1.0, 1.4])
    whole, result = run(model(False), x, (1, 300), threads=1), run(model(True), x, (1, 300), threads=2)
    assert sorted(result.failed) == [2, 4]
    assert all("nan" in why.lower() or "invalid values" in why for why in result.failed.values())
    assert result.evaluated.tolist() == [0, 1, 3]
    assert np.isnan(result.iwae[:, [2, 4]]).all()
    np.testing.assert_allclose(result.iwae[:, [0, 1, 3]], whole.iwae[:, [0, 1, 3]], rtol=1e-6)
    assert len(result.curve.best.examples) == 3


def test_an_example_outside_the_support_is_named_and_the_others_are_evaluated() -> None:
    x = bits(6)
    x[4, 2] = 0.5
    result = run(bernoulli_net(), x, (1, 20))
    assert list(result.failed) == [4]
    assert "x[4] = '0.5" in result.failed[4]
    assert "binarise" in result.failed[4]
    good = run(bernoulli_net(), bits(6), (1, 20))
    keep = [0, 1, 2, 3, 5]
    np.testing.assert_allclose(result.iwae[:, keep], good.iwae[:, keep], rtol=1e-5)


def test_a_mistake_of_all_examples_is_an_error() -> None:
    with pytest.raises(BadInput, match=r"x\[0\] = '0.5.*binarise"):
        run(bernoulli_net(), torch.full((5, 6), 0.5), (1, 20))
    wrong = TorchModel(
        prior=lambda: Independent(Normal(torch.zeros(2), 1.0), 1),
        encoder=lambda x: Independent(Normal(x[:, :2], 1.0), 1),
        decoder=lambda z: Independent(Normal(z, 1.0), 1),
    )
    with pytest.raises(BadInput, match=r"event shape of decoder\(z\) = \(2,\): expected \(4,\)"):
        run(wrong, torch.zeros(3, 4), (1, 5))
    categories = TorchModel(
        prior=lambda: Categorical(torch.ones(2) / 2),
        encoder=lambda x: Categorical(torch.ones(len(x), 2) / 2),
        decoder=lambda z: Categorical(torch.ones(len(z), 2) / 2),
    )
    with pytest.raises(BadInput, match=r"x\[0\] = 2: expected data in the support"):
        run(categories, torch.tensor([2]), (1, 5))


def test_out_of_memory_halves_the_chunk_and_goes_on() -> None:
    seen: list[int] = []
    lock = threading.Lock()

    def decoder(z: torch.Tensor) -> Distribution:
        with lock:
            seen.append(len(z))
        if len(z) > 150:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return Normal(z, 1.0)

    model = TorchModel(prior=lambda: Normal(0.0, 1.0), encoder=lambda x: Normal(x / 2, 0.8), decoder=decoder)
    easy = TorchModel(
        prior=lambda: Normal(0.0, 1.0), encoder=lambda x: Normal(x / 2, 0.8), decoder=lambda z: Normal(z, 1.0)
    )
    x = torch.linspace(-1, 1, 8)
    result = run(model, x, (1, 600), chunk=512, threads=2)
    assert [note for note in result.notes if "out of memory" in note] == [
        "out of memory: the chunk was halved to 256",
        "out of memory: the chunk was halved to 128",
    ]
    assert result.settings["chunk"] == 128
    assert not result.failed
    assert 512 in seen
    same(result, run(easy, x, (1, 600)))


def test_without_memory_for_a_single_row_there_is_one_clear_error() -> None:
    probing = [True]

    def decoder(z: torch.Tensor) -> Distribution:
        if not probing[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Normal(z, 1.0)

    model = TorchModel(prior=lambda: Normal(0.0, 1.0), encoder=lambda x: Normal(x / 2, 0.8), decoder=decoder)
    job = Job(model, torch.zeros(2), (1, 9), chunk=4, fused="off")
    probing[0] = False
    with pytest.raises(BadInput, match="chunk = 1: expected memory for a single row"):
        list(job.compute(list(job.layout)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ks": ()}, "ks = "),
        ({"ks": (1, 0)}, "ks = "),
        ({"ks": (1, 8), "k": 5}, "k = 5: expected at least 8"),
        ({"chunk": 0}, "chunk = 0"),
        ({"threads": 1.5}, "threads = 1.5"),
        ({"seed": -1}, "seed = -1"),
        ({"dtype": "float16"}, "dtype = 'float16'"),
        ({"fused": "yes"}, "fused = 'yes'"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        run(LINEAR.torch(), np.zeros((2, 3)), **options)


# --- the faster way ---


class Chain(torch.nn.Module):
    """A small Bernoulli VAE of the plain kind, which the fused path recognises."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.encode = torch.nn.Linear(6, 8)
            self.decode = torch.nn.Sequential(torch.nn.Linear(4, 9), torch.nn.Tanh(), torch.nn.Linear(9, 6))

    def prior(self) -> Distribution:
        return Independent(Normal(torch.zeros(4), torch.ones(4)), 1)

    def encoder(self, x: torch.Tensor) -> Distribution:
        mean, log_scale = self.encode(x).chunk(2, -1)
        return Independent(Normal(mean, log_scale.exp()), 1)

    def decoder(self, z: torch.Tensor) -> Distribution:
        return Independent(Bernoulli(logits=self.decode(z)), 1)


@pytest.mark.parametrize("samples", [40, 3000])
def test_the_fused_way_is_taken_and_changes_nothing_but_rounding(samples: int) -> None:
    model = Chain().eval()
    options = {"ks": (1, 7, samples), "seed": 2}
    plain, fused = run(model, bits(9), **options, fused="off"), run(model, bits(9), **options)
    assert (plain.settings["fused"], fused.settings["fused"]) == ("no", "weights")
    same(plain, fused, 1e-5, 1e-6)
    for changed in ({"chunk": 64}, {"chunk": 1 << 13}, {"threads": 3}):
        same(fused, run(model, bits(9), **(options | {"threads": 1} | changed)))


def test_the_fused_way_names_data_outside_the_support() -> None:
    x = bits(6)
    x[4, 2] = 0.5
    result = run(Chain().eval(), x, (1, 300))
    assert list(result.failed) == [4]
    assert "x[4] = '0.5" in result.failed[4]


# --- bfloat16 ---


def test_bfloat16_states_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "has_bfloat16_units", lambda device: True)
    exact, rounded = (run(Chain().eval(), bits(9), (1, 400), seed=2, dtype=dtype) for dtype in (None, "bfloat16"))
    gaps = np.abs(exact.iwae - rounded.iwae)
    assert 0 < gaps.max() < 0.05
    assert "bfloat16 moves log p(x|z) by " in rounded.notes[0]
    assert rounded.settings["dtype"] == "bfloat16"
    assert rounded.rounding > gaps.max()
    assert rounded.rounding < 1
    same(rounded, run(Chain().eval(), bits(9), (1, 400), seed=2, dtype="bfloat16", threads=2), 1e-2)


def test_bfloat16_is_refused_without_units_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "has_bfloat16_units", lambda device: False)
    with pytest.raises(BadInput, match=r"dtype = 'bfloat16': expected a cpu that multiplies bfloat16.*slower"):
        run(Chain().eval(), bits(2), (1, 4), dtype="bfloat16")


def test_bfloat16_is_refused_for_laws_whose_parameters_it_would_spoil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "has_bfloat16_units", lambda device: True)
    model, data = MODELS["finite"]
    with pytest.raises(BadInput, match=r"float32 for a decoder's law other than Bernoulli or Normal.*Categorical"):
        run(model(), data(2), (1, 4), dtype="bfloat16")


# --- memory ---

MEMORY = """
import resource, sys, torch
from torch.distributions import Bernoulli, Independent, Normal
from boundcheck.evidence.engine import run
from boundcheck.models.torch_model import TorchModel
w = torch.linspace(-1, 1, 2 * 784).reshape(2, 784)
model = TorchModel(
    prior=lambda: Independent(Normal(torch.zeros(2), 1.0), 1),
    encoder=lambda x: Independent(Normal(x[:, :2], 1.0), 1),
    decoder=lambda z: Independent(Bernoulli(logits=z @ w), 1),
)
x = (torch.arange(2 * 784).reshape(2, 784) % 3 == 0).float()
run(model, x, (1, 5, 50), threads=2)
grown = []
for k in (50, int(sys.argv[1])):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(model, x, (1, 5, k), threads=2, fused=sys.argv[2])
    grown.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
print(*grown)
assert "torch._dynamo" not in sys.modules, "torch's compiler takes seconds and 100 MB to import"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the resource module is POSIX")
def test_memory_does_not_grow_with_k() -> None:
    """200,000 draws of 784 pixels for two examples are 1.2 GB at once; even the log-weights alone were 3 MB."""
    root = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", MEMORY, "200000", "auto"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    grown = [int(each) * (1 if sys.platform == "darwin" else 1024) for each in done.stdout.split()]
    assert max(grown) < 30e6, grown


def test_an_encoder_without_spread_has_no_weights() -> None:
    model = Chain().eval()
    with torch.no_grad():
        model.encode.bias[4:] = -1e4  # scales of exp(-10000) = 0
    with pytest.raises(BadInput, match=r"log-weight|draw|encoder"):
        run(model, bits(3), (1, 300))


# --- other accumulators ---


def test_other_accumulators_ride_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "_SMALLEST_ITEM", 1024)
    model, x = LINEAR.torch(), torch.linspace(-1, 1, 6).double().reshape(2, 3)
    makers = {"wealth": lambda examples, start: Wealth(examples, start=start), "few": Tail.maker(3)}
    result = run(model, x, (1, 3000), accumulators=makers, threads=2)
    wealth, few = result.accumulators["wealth"], result.accumulators["few"]
    assert isinstance(wealth, Wealth) and isinstance(few, Tail)
    columns = [
        torch.cat([block for where, block in log_weights(model, x, 3000) if where.start == row], 0) for row in range(2)
    ]
    whole = Wealth(2)
    whole.add(torch.cat(columns, 1).numpy())
    assert wealth.draws == 3000
    np.testing.assert_allclose(wealth.lower(0.01), whole.lower(0.01), rtol=1e-9)
    assert (wealth.lower(0.01) < [LINEAR.log_evidence(row) for row in x.numpy()]).all()
    np.testing.assert_allclose(few.largest, result.tail[:3])


@pytest.mark.parametrize("lost", [False, True])
def test_a_law_that_depends_on_its_batch_is_refused_though_a_single_row_looks_well(lost: bool) -> None:
    """Batch normalisation in training mode: of one row alone it is a function."""
    layer = torch.nn.BatchNorm2d(1)

    def encoder(x: torch.Tensor) -> Distribution:
        if lost and bool((x == 7).any()):
            raise ValueError("seven")
        return Independent(Normal(layer(x[:, None, None, :2])[:, 0, 0], 1.0), 1)

    model = TorchModel(
        prior=lambda: Independent(Normal(torch.zeros(2), 1.0), 1),
        encoder=encoder,
        decoder=lambda z: Independent(Normal(torch.cat([z, z], 1), 1.0), 1),
    )
    x = torch.linspace(-1, 1, 32).reshape(8, 4).square()
    x[3] = 7.0
    with pytest.raises(BadInput, match=r"model\.eval\(\)"):
        run(model, x, (1, 10))


class Forgetful(torch.nn.Module):
    """A vector latent; what `keep` does with the decoder's hidden layer, it does at each call."""

    def __init__(self, keep: Callable) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(2, 8), torch.nn.Linear(8, 3)
        self.register_buffer("total", torch.zeros(8))
        self.keep = keep

    def prior(self) -> Distribution:
        return Independent(Normal(torch.zeros(2), 1.0), 1)

    def encoder(self, x: torch.Tensor) -> Distribution:
        return Independent(Normal(x[:, :2], 0.7), 1)

    def decoder(self, z: torch.Tensor) -> Distribution:
        h = self.first(z)
        self.keep(self, h)
        return Independent(Normal(self.last(h.tanh()), 1.0), 1)


CACHE: dict = {}


@pytest.mark.parametrize(
    ("keep", "threads"),
    [
        (lambda m, h: None, 2),
        (lambda m, h: setattr(m, "h", h), 1),
        (lambda m, h: setattr(m, "rows", len(h)), 1),
        (lambda m, h: CACHE.update(h=h[0]), 1),
        (lambda m, h: m.total.add_(h.sum(0)), 1),
        (lambda m, h: CACHE.setdefault("once", h.exp()), 2),  # a table that is made at the first call
    ],
)
def test_a_model_that_keeps_something_between_calls_is_given_one_thread(keep: Callable, threads: int) -> None:
    """Two threads would take each other's hidden layers for their own."""
    result = run(Forgetful(keep).eval(), torch.zeros(2, 3), (1, 300), threads=2)
    assert result.settings["threads"] == threads
    assert any("one thread" in note for note in result.notes) == (threads == 1)


def test_what_was_changed_in_torch_is_put_back_when_work_breaks_off() -> None:
    before = torch.get_num_threads(), Distribution._validate_args

    def stop(done: int, of: int) -> None:
        raise KeyboardInterrupt

    for threads in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            run(LINEAR.torch(), np.zeros((40, 3)), (1, 5000), threads=threads, progress=stop)
        assert (torch.get_num_threads(), Distribution._validate_args) == before


@given(data=st.data())
@settings(max_examples=25)
def test_no_way_of_cutting_the_work_changes_the_result(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(MODELS)))
    examples, draws = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 900))
    ks = tuple(data.draw(st.sets(st.integers(1, draws), min_size=1, max_size=3)))
    seed = data.draw(st.integers(0, 2**63 - 1))
    model, x = MODELS[name]
    options: dict = {"ks": ks, "k": draws, "seed": seed, "fused": "off"}
    reference = run(model(), x(examples), threads=1, chunk=4096, **options)
    chunk, threads = data.draw(st.integers(20, 2000)), data.draw(st.integers(1, 3))
    same(reference, run(model(), x(examples), chunk=chunk, threads=threads, **options))


def test_a_look_at_the_model_that_needs_too_much_memory_looks_at_less() -> None:
    def encoder(x: torch.Tensor) -> Distribution:
        if len(x) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Normal(x / 2, 0.8)

    model = TorchModel(prior=lambda: Normal(0.0, 1.0), encoder=encoder, decoder=lambda z: Normal(z, 1.0))
    easy = TorchModel(
        prior=lambda: Normal(0.0, 1.0), encoder=lambda x: Normal(x / 2, 0.8), decoder=lambda z: Normal(z, 1.0)
    )
    x = torch.linspace(-1, 1, 100)
    result = run(model, x, (1, 7), chunk=16)
    assert result.settings["chunk"] == 4
    same(result, run(easy, x, (1, 7)))
