"""Evidence estimates against the oracle and closed forms; verdicts that must never be wrong; files that are wrong.

Statistical tests allow six standard errors, so a false alarm has probability 2e-9 each and below 1e-6 together.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch.distributions import Bernoulli, Categorical, Independent, Normal
from torch_models import LinearGaussian, as_torch, exact_encoder

from boundcheck.catalogue import objectives
from boundcheck.claims.decide import Guarantee, Outcome, decide
from boundcheck.errors import BadInput, BoundcheckError, CannotCompute, FormulaError, UnknownName
from boundcheck.evaluators.averages import DatasetMean
from boundcheck.evaluators.values import Approximate, Bias, Sampled
from boundcheck.evidence import (
    EvidenceCard,
    evaluate_files,
    evaluate_model,
    judge,
    load_data,
    load_factory,
    load_weights,
    render,
)
from boundcheck.evidence.audit import Finding
from boundcheck.evidence.engine import IwaeCurve, discrete_upper_bound
from boundcheck.evidence.engine import run as weigh
from boundcheck.evidence.objective import Estimate
from boundcheck.evidence.verdict import Evidence, LowerBound, UpperBound
from boundcheck.language import E, exp, log
from boundcheck.models.torch_model import TorchModel

SIX = 6.0
FINITE = oracle.random_model(random.Random(11), x=2, z=3, xt=2, denominator=20)
FINITE_TORCH = as_torch(FINITE)
LINEAR = LinearGaussian(2, 3, seed=5)


# --- the IWAE curve ---


def iwae_curve(*args: object, **options: object) -> IwaeCurve:
    return weigh(*args, **options).curve  # type: ignore[arg-type]


def test_every_point_of_the_curve_is_an_unbiased_iwae() -> None:
    x = torch.zeros(400, dtype=torch.long)
    curve = iwae_curve(FINITE_TORCH, x, (1, 2, 5, 20), seed=1)
    assert [(point.k, point.groups, point.error_from) for point in curve.points] == [
        (1, 20, "groups"),
        (2, 10, "groups"),
        (5, 4, "groups"),
        (20, 1, "weights"),
    ]
    for point in curve.points[:3]:
        truth = float(oracle.iwae(FINITE, 0, point.k))
        assert abs(point.mean.mean - truth) < SIX * point.mean.monte_carlo_error
        assert point.mean.monte_carlo_error < 0.02
    last = [example.mean for example in curve.best.examples]  # equal examples: their spread is an error as well
    assert np.mean(last) == pytest.approx(curve.best.mean.mean)
    assert float(oracle.iwae(FINITE, 0, 5)) < np.mean(last) + SIX * np.std(last) / 20
    assert np.mean(last) < float(oracle.log_evidence(FINITE, 0)) + SIX * np.std(last) / 20


def test_the_error_of_a_single_group_is_that_of_its_weights() -> None:
    x = torch.tensor(np.tile(np.array([0.3, -0.5, 0.2]), (2000, 1)))
    (point,) = iwae_curve(LINEAR.torch(), x, (50,), seed=2).points
    values = [example.mean for example in point.examples]
    errors = [example.standard_error for example in point.examples]
    assert point.groups == 1
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values), rel=0.25)


@pytest.mark.parametrize("chunk", [5, 64, None])
def test_with_the_exact_posterior_the_curve_is_flat_at_the_log_evidence(chunk: int | None) -> None:
    x = np.random.default_rng(1).normal(size=(6, 3))
    truth = np.mean([LINEAR.log_evidence(row) for row in x])
    curve = iwae_curve(exact_encoder(LINEAR), x, (1, 3, 30), chunk=chunk)
    for point in curve.points:
        assert point.mean.mean == pytest.approx(truth, abs=1e-9)
        assert point.mean.monte_carlo_error < 1e-6
    assert curve.effective_sample_sizes == pytest.approx(30, abs=1e-6)


def test_weights_that_are_all_zero_give_minus_infinity_and_no_samples() -> None:
    nowhere = TorchModel(
        prior=lambda: torch.distributions.Uniform(5.0, 6.0),
        encoder=lambda x: torch.distributions.Uniform(torch.zeros(len(x)), 1.0),
        decoder=lambda z: Normal(z, 1.0),
    )
    curve = iwae_curve(nowhere, torch.tensor([0.5]), (1, 4))
    assert [point.mean.mean for point in curve.points] == [-math.inf, -math.inf]
    assert curve.effective_sample_sizes.tolist() == [0.0]
    card = evaluate_model(nowhere, torch.tensor([0.5]), k=4)
    assert card.judgement is not None
    assert card.judgement.outcome is Outcome.UNDECIDED
    json.loads(json.dumps(card.to_json(), allow_nan=False))


@pytest.mark.parametrize("ks", [(), (0,), (1.5,), (True, 2)])
def test_bad_ks_are_refused(ks: tuple) -> None:
    with pytest.raises(BadInput, match="ks = "):
        iwae_curve(FINITE_TORCH, [0], ks)


# --- bounds on the evidence ---


def test_discrete_data_cannot_be_more_probable_than_their_entropy_allows() -> None:
    rng = random.Random(3)
    for _ in range(20):
        model = oracle.random_model(rng, x=4, z=3, xt=4)
        x = torch.tensor([rng.randrange(4) for _ in range(rng.randint(1, 9))])
        bound = discrete_upper_bound(as_torch(model), x)
        assert bound is not None
        assert sum(float(oracle.log_evidence(model, i)) for i in x.tolist()) / len(x) <= bound + 1e-12


def test_the_discrete_bound_is_minus_the_entropy_of_the_examples() -> None:
    bits = TorchModel(
        prior=lambda: Normal(0.0, 1.0),
        encoder=lambda x: Normal(x[:, 0], 1.0),
        decoder=lambda z: Independent(Bernoulli(logits=z[:, None].expand(-1, 2)), 1),
    )
    x = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    entropy = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    assert discrete_upper_bound(bits, x) == pytest.approx(-entropy)
    assert discrete_upper_bound(LINEAR.torch(), torch.zeros(3, 3).double()) is None


# --- verdicts ---


def evidence(
    value: float, *, upper: UpperBound | None = None, known: Approximate | None = None, rounding: float = 0.0
) -> Evidence:
    """As if log p(x) were at least `value`, at any probability, and IWAE-1000 were there too."""
    given = None if known is None else UpperBound(known, "given")
    yardstick = ("IWAE-1000", DatasetMean(value, 0.001, 0.1, Bias.NONE, 1000, 20))
    return Evidence((LowerBound("weights", lambda delta: value),), yardstick, upper, given, rounding=rounding)


def estimate(value: float, error: float = 0.001, bias: Bias = Bias.NONE) -> Estimate:
    return Estimate(DatasetMean(value, error, 0.1, bias, 1000, 1000))


UPPER = UpperBound(Approximate(-5.0, 0.0), "a reason")


@pytest.mark.parametrize(
    ("objective", "upper", "expected"),
    [
        (estimate(-12.0), None, Outcome.HOLDS),
        (estimate(-12.0), UPPER, Outcome.HOLDS),
        (estimate(-12.0, bias=Bias.HIGH), None, Outcome.HOLDS),
        (estimate(-12.0, bias=Bias.LOW), None, Outcome.UNDECIDED),
        (estimate(-12.0, bias=Bias.UNKNOWN), None, Outcome.UNDECIDED),
        (estimate(-12.0, error=1.0), None, Outcome.UNDECIDED),
        (estimate(-10.0), None, Outcome.UNDECIDED),
        (estimate(-8.0), None, Outcome.UNDECIDED),
        (estimate(-8.0), UPPER, Outcome.UNDECIDED),
        (estimate(100.0), None, Outcome.UNDECIDED),
        (estimate(-4.0), UPPER, Outcome.VIOLATED),
        (estimate(-4.0, bias=Bias.LOW), UPPER, Outcome.VIOLATED),
        (estimate(-4.0, bias=Bias.HIGH), UPPER, Outcome.UNDECIDED),
        (estimate(-4.0, bias=Bias.UNKNOWN), UPPER, Outcome.UNDECIDED),
        (estimate(-4.0, error=1.0), UPPER, Outcome.UNDECIDED),
        (estimate(-math.inf, error=math.nan), UPPER, Outcome.UNDECIDED),
        (estimate(math.inf, error=math.nan), UPPER, Outcome.UNDECIDED),
        (estimate(-12.0, error=math.nan), UPPER, Outcome.UNDECIDED),
    ],
)
def test_verdicts_of_estimates(objective: Estimate, upper: UpperBound | None, expected: Outcome) -> None:
    judgement = judge("it", objective, evidence(-10.0, upper=upper))
    assert judgement.outcome is expected, judgement.reading
    assert (judgement.guarantee is None) == (expected is Outcome.UNDECIDED) == bool(judgement.decide_by)
    assert judgement.reading
    if objective.mean.mean in (-8.0, 100.0) and upper is None:
        assert "exceeds the IWAE-1000 lower bound" in judgement.reading
        assert "an upper bound on the evidence" in judgement.decide_by
        assert "simulated data" in judgement.decide_by


def test_rounding_widens_every_limit() -> None:
    assert judge("it", estimate(-10.1), evidence(-10.0)).outcome is Outcome.HOLDS
    assert judge("it", estimate(-10.1), evidence(-10.0, rounding=0.2)).outcome is Outcome.UNDECIDED
    assert judge("it", estimate(-10.1), evidence(-10.0), rounding=0.2).outcome is Outcome.UNDECIDED
    assert judge("it", estimate(-4.9), evidence(-10.0, upper=UPPER)).outcome is Outcome.VIOLATED
    assert judge("it", estimate(-4.9), evidence(-10.0, upper=UPPER), rounding=0.2).outcome is Outcome.UNDECIDED


def test_a_known_evidence_decides_both_ways_numerically() -> None:
    known = Approximate(-9.0, 1e-6)
    assert judge("it", estimate(-9.5), evidence(-10.0)).outcome is Outcome.UNDECIDED
    for value, expected in ((-9.5, Outcome.HOLDS), (-8.5, Outcome.VIOLATED), (-9.0, Outcome.UNDECIDED)):
        judgement = judge("it", estimate(value), evidence(-10.0, known=known))
        assert judgement.outcome is expected
        assert (judgement.guarantee is Guarantee.NUMERICAL) == (expected is not Outcome.UNDECIDED)
    assert judge("it", estimate(-11.0), evidence(-10.0, known=known)).guarantee is Guarantee.STATISTICAL


def test_exceeding_the_evidence_of_simulated_data_is_exceeding_the_evidence() -> None:
    found = Finding("simulated", Outcome.VIOLATED, "exceeds it there", 1e-4)
    for value in (-12.0, -8.0):
        judgement = judge("it", estimate(value), evidence(-10.0), simulated=found)
        assert judgement.outcome is Outcome.VIOLATED
        assert judgement.reading == "exceeds it there" and judgement.error_probability == 1e-4
    below = Finding("simulated", Outcome.HOLDS, "below it there", 1e-4)
    assert judge("it", estimate(-8.0), evidence(-10.0), simulated=below).outcome is Outcome.UNDECIDED


def test_few_and_skewed_draws_widen_the_limits() -> None:
    """The 1e-3 quantile of a mean of ten Exp(1) draws less their mean: Student's t alone would be far too narrow."""
    rng = np.random.default_rng(0)
    draws = 1 - rng.exponential(size=(20_000, 10))  # mean 0, skewed to the left: sample means look too certain
    wrong = plain = 0
    for mean, error in zip(draws.mean(1), draws.std(1, ddof=1) / 10**0.5, strict=True):
        value = Estimate.of([Sampled(float(mean), float(error), Bias.NONE, 10)])
        wrong += decide(value.at(1e-2), "<=", Approximate(0.0, 0.0), alpha=1e-2).outcome is Outcome.VIOLATED
        plain += decide(value.mean.sampled, "<=", Approximate(0.0, 0.0), alpha=1e-2).outcome is Outcome.VIOLATED
    assert wrong <= 200 < 400 < plain
    many = Estimate.of([Sampled(0.0, 0.1, Bias.NONE, 1000)] * 200)
    assert many.at(1e-3).standard_error == pytest.approx(many.mean.monte_carlo_error, rel=0.05)


def test_no_verdict_about_a_linear_gaussian_model_is_wrong() -> None:
    """Twenty data sets; alpha is 1e-3 a verdict, but the seeds are fixed, so this is no gamble."""
    for seed in range(20):
        x = np.random.default_rng(seed).normal(size=(40, 3)) * 0.5
        evidence = float(np.mean([LINEAR.log_evidence(row) for row in x]))
        truths = {
            "denoising_coupled": np.mean([LINEAR.objective(row, 1, 0) for row in x]) <= evidence,
            "denoising_decoupled": np.mean([LINEAR.objective(row, 1, 2) for row in x]) <= evidence,
            "elbo": True,
        }
        known = Approximate(evidence, 1e-9) if seed % 2 else None
        card = evaluate_model(
            LINEAR.torch(), x, k=200, replicates=200, simulated=20, seed=seed, log_evidence=known, grid=False
        )
        for name, judgement in card.judgements.items():
            assert judgement.outcome is not (Outcome.VIOLATED if truths[name] else Outcome.HOLDS), name
        assert card.judgements["denoising_coupled"].outcome is Outcome.HOLDS


def test_the_bernoulli_counterexample_is_decided_without_being_told_its_evidence() -> None:
    """log p(x) = 0 and the decoupled objective is log(5/3): the data are one point, of probability at most 1."""
    model = as_torch(oracle.bernoulli())
    x = torch.zeros(50, dtype=torch.long)
    card = evaluate_model(model, x, objective="denoising_decoupled", k=500, replicates=500)
    assert abs(card.value.mean - math.log(5 / 3)) < SIX * card.value.monte_carlo_error
    assert card.judgement is not None
    assert card.judgement.outcome is Outcome.VIOLATED
    assert card.judgements["denoising_coupled"].outcome is Outcome.HOLDS
    assert "at most" in card.reading


# --- cards ---


def test_a_card_is_printed_and_saved() -> None:
    x = np.random.default_rng(0).normal(size=(30, 3))
    reports: list[tuple[int, int]] = []
    card = evaluate_model(
        LINEAR.torch(),
        x,
        objective="denoising_decoupled",
        k=60,
        replicates=50,
        simulated=25,
        progress=lambda done, of: reports.append((done, of)),
        model_name="a [model]",
        data_name="some data",
    )
    assert reports[-1][0] == reports[-1][1] == 30 * (60 + 2 * 50) + 25 * (2 * 60 - 1 + 2 * 50)
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    data = json.loads(json.dumps(card.to_json(), allow_nan=False))
    assert data["objective"] == "denoising_decoupled"
    assert data["verdict"] in {"holds", "violated", "undecided"}
    assert [point["k"] for point in data["iwae"]] == [1, 5, 50, 60]
    assert set(data["estimates"]) == {"elbo", "denoising_coupled", "denoising_decoupled"}
    assert data["value"].pop("bits_per_dimension") == pytest.approx(-card.value.mean / math.log(2) / 3)
    assert data["value"] == data["estimates"]["denoising_decoupled"]
    assert data["examples"] == 30
    assert data["evidence_at_most"] is None
    assert len(data["per_example"]) == 30 and data["per_example"][7]["example"] == 7
    assert data["interval"]["label"] == "bound with probability 1-delta"
    assert data["simulated"]["label"] == "on simulated data only"
    assert data["versions"]["torch"] == torch.__version__
    assert data["dimensions"] == 3 and data["checks"] == 5
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    render(card, console)
    text = console.export_text()
    assert "a [model] on some data" in text
    assert "IWAE-60" in text
    assert f"{card.value.mean:.3f}" in text
    assert f"denoising_decoupled: {data['verdict']}" in text


def test_iwae_is_the_yardstick_and_not_judged() -> None:
    card = evaluate_model(LINEAR.torch(), np.zeros((3, 3)), objective="iwae", k=10, replicates=10)
    assert card.judgement is None
    assert card.value == card.curve.best.mean
    assert card.to_json()["verdict"] is None
    assert "yardstick" in card.reading


def test_a_formula_of_ones_own_is_judged_with_its_bias() -> None:
    def renyi_0(m, x):
        return log(E(m.encoder(x), lambda z: exp(m.log_joint(x, z) - m.encoder(x).log_prob(z))))

    card = evaluate_model(LINEAR.torch(), np.zeros((30, 3)), objective=renyi_0, k=100, replicates=400, inner=1)
    assert card.estimates["renyi_0"].bias is Bias.LOW
    assert card.judgement is not None
    assert card.judgement.outcome is Outcome.UNDECIDED
    assert "biased low" in card.reading


def test_the_parameters_of_an_objective_are_given_or_missed() -> None:
    def powered(m, x, k, alpha):
        w = lambda z: m.log_joint(x, z) - m.encoder(x).log_prob(z)  # noqa: E731
        return E(m.encoder(x).copies(k), lambda z: (1 - alpha) * objectives.log_mean_exp(w(z)))

    x = np.zeros((2, 3))
    with pytest.raises(FormulaError, match="powered needs a value for alpha"):
        evaluate_model(LINEAR.torch(), x, objective=powered, k=5)
    card = evaluate_model(LINEAR.torch(), x, objective=powered, k=5, replicates=10, parameters={"alpha": 0.5})
    assert math.isfinite(card.value.mean)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, BadInput, "k = 0"),
        ({"k": 2.0}, BadInput, "k = 2.0"),
        ({"replicates": 1}, BadInput, "replicates = 1"),
        ({"alpha": 0.7}, BadInput, "alpha = "),
        ({"objective": "elbow"}, UnknownName, "did you mean 'elbo'"),
        ({"objective": "log_evidence"}, CannotCompute, "no draws"),
        ({"objective": "maximum"}, UnknownName, "expected a known objective"),
    ],
)
def test_bad_options_are_refused(options: dict, error: type[BoundcheckError], message: str) -> None:
    with pytest.raises(error, match=message):
        evaluate_model(LINEAR.torch(), np.zeros((2, 3)), **({"k": 3, "replicates": 5} | options))


def test_the_users_random_state_is_left_alone() -> None:
    state = torch.get_rng_state()
    evaluate_model(as_torch(FINITE), torch.zeros(3, dtype=torch.long), k=10, replicates=10)
    assert torch.equal(torch.get_rng_state(), state)


# --- files ---

MODEL_FILE = """
import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(4, 2)
        self.decode = nn.Linear(2, 4)
        self.dropout = nn.Dropout(0.5)

    def prior(self):
        return Independent(Normal(torch.zeros(2), 1.0), 1)

    def encoder(self, x):
        return Independent(Normal(self.dropout(self.encode(x)), 1.0), 1)

    def decoder(self, z):
        return Independent(Bernoulli(logits=self.decode(z)), 1)


class Wide(Tiny):
    def __init__(self):
        super().__init__()
        self.decode = nn.Linear(2, 5)


def wrong():
    raise ValueError("no such thing")


def needs(size):
    return Tiny()


made = Tiny()
number = 3
nothing = object


def bound(m, x):
    from boundcheck.language import E
    return E(m.encoder(x), lambda z: m.likelihood(z).log_prob(x))
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "tiny.py").write_text(MODEL_FILE)
    module = load_factory(f"{tmp_path / 'tiny.py'}:Tiny")()
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    torch.save(module.state_dict(), tmp_path / "w.pt")
    torch.save({"state_dict": module.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pth")
    bits = np.random.default_rng(0).integers(0, 2, size=(20, 4)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", test=bits, grey=bits / 2)
    np.savez(tmp_path / "single.npz", bits)
    np.save(tmp_path / "d.npy", bits)
    return tmp_path


def run(files: Path, factory: str = "Tiny", **options: object) -> EvidenceCard:
    defaults: dict = {"data": f"{files}/d.npz:test", "weights": files / "w.safetensors", "k": 20, "replicates": 20}
    defaults["simulated"] = 10
    return evaluate_files(f"{files}/tiny.py:{factory}", **(defaults | options))


def test_equal_files_give_equal_cards(files: Path) -> None:
    cards = [
        run(files),
        run(files, weights=files / "w.pt"),
        run(files, weights=files / "checkpoint.pth"),
        run(files, data=files / "d.npy"),
        run(files, data=files / "single.npz"),
        run(files, data=files / "d.npz", key="test"),
    ]
    assert len({card.value for card in cards}) == 1
    assert cards[0].judgement is not None
    assert cards[0].upper is not None
    assert run(files, seed=1).value != cards[0].value
    assert run(files, factory="made", weights=None).value != cards[0].value


def test_a_limit_chooses_examples_at_random(files: Path) -> None:
    assert run(files, limit=5).to_json()["examples"] == 5
    assert run(files, limit=50).to_json()["examples"] == 20
    chosen = {run(files, limit=1, seed=seed).value.mean for seed in range(5)}
    assert len(chosen) > 1


def test_a_formula_can_come_from_a_file(files: Path) -> None:
    card = run(files, objective=f"{files}/tiny.py:bound")
    assert card.objective == "bound"
    assert math.isfinite(card.value.mean)


WRONG_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no name": (lambda f: load_factory(str(f / "tiny.py")), "expected FILE.py:NAME"),
    "no file": (lambda f: load_factory(f"{f}/absent.py:vae"), "there is no file"),
    "unknown name": (lambda f: load_factory(f"{f}/tiny.py:Tinny"), "did you mean 'Tiny'"),
    "not python": (lambda f: load_factory(f"{f}/d.npz:vae"), "must end in .py"),
    "factory fails": (lambda f: run(f, "wrong"), "calling it raised ValueError: no such thing"),
    "factory with arguments": (lambda f: run(f, "needs"), r"calling it raised TypeError.*size"),
    "not a factory": (lambda f: run(f, "number"), "a function without arguments"),
    "not a model": (lambda f: run(f, "nothing", weights=None), "an object with a method prior"),
    "no module": (lambda f: run(f, "nothing"), "expected a torch.nn.Module"),
    "other architecture": (
        lambda f: run(f, "Wide"),
        r"decode.weight has the shape \(4, 2\) in the file, \(5, 2\).*1 more",
    ),
    "no weights": (lambda f: run(f, weights=f / "absent.pt"), "there is no such file"),
    "weights format": (lambda f: run(f, weights=f / "d.npz"), "a .safetensors, .pt, .pth or .ckpt file"),
    "no data": (lambda f: run(f, data=f / "absent.npz"), "there is no file"),
    "no key": (lambda f: run(f, data=f / "d.npz"), "the file has: test, grey"),
    "wrong key": (lambda f: run(f, data=f"{f}/d.npz:tset"), "did you mean 'test'"),
    "data format": (lambda f: run(f, data=f / "tiny.py"), "a .npz or .npy file"),
    "grey pixels": (lambda f: run(f, data=f"{f}/d.npz:grey"), r"x\[\d+\] = '0.5.*binarise"),
    "unknown objective": (lambda f: run(f, objective="elob"), "did you mean 'elbo'"),
    "missing corruption": (lambda f: run(f, objective="denoising_coupled"), "without corruption"),
    "a number for a formula": (lambda f: run(f, objective=f"{f}/tiny.py:number"), "a formula"),
    "device": (lambda f: run(f, device="gpu7"), "device = 'gpu7'"),
    "limit": (lambda f: run(f, limit=0), "limit = 0"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_wrong_files_are_named_in_one_line(name: str, files: Path) -> None:
    action, message = WRONG_FILES[name]
    with pytest.raises(BadInput, match=message) as caught:
        action(files)
    assert "\n" not in str(caught.value)


def test_a_file_that_does_not_run_is_named(tmp_path: Path) -> None:
    for source, message in [
        ("def f(:", "SyntaxError"),
        ("import absent_module_x", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("1 / 0", "ZeroDivisionError"),
    ]:
        (tmp_path / "bad.py").write_text(source)
        with pytest.raises(BadInput, match=f"running it raised {message}"):
            load_factory(f"{tmp_path}/bad.py:f")


def test_a_file_may_import_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("value = 7")
    (tmp_path / "main.py").write_text("from neighbour_of_mine import value")
    assert load_factory(f"{tmp_path}/main.py:value") == 7


def test_a_file_that_was_just_rewritten_is_read_anew(tmp_path: Path) -> None:
    """Python's own import takes a bytecode file for fresh if the source has the same length and second of change."""
    path = tmp_path / "formula.py"
    path.write_text("value = 1\n")
    assert load_factory(f"{path}:value") == 1
    times = path.stat()
    path.write_text("value = 2\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load_factory(f"{path}:value") == 2
    assert not (tmp_path / "__pycache__").exists()


class Evil:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("evil-was-here"),))


def test_weights_with_code_are_refused_and_not_run(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    torch.save({"encode.weight": Evil()}, files / "evil.pt")
    (files / "plain.pt").write_bytes(pickle.dumps(Evil()))
    (files / "broken.safetensors").write_bytes(b"\x00" * 40)
    (files / "empty.pt").write_bytes(b"")
    for name in ("evil.pt", "plain.pt", "broken.safetensors", "empty.pt"):
        with pytest.raises(BadInput, match="the weights = ") as caught:
            run(files, weights=files / name)
        assert "\n" not in str(caught.value)
    assert not (files / "evil-was-here").exists()


def test_weights_that_do_not_fit_are_named(files: Path) -> None:
    module = load_factory(f"{files}/tiny.py:Tiny")()
    state = module.state_dict()
    cases = {
        "the model's encode.bias is missing": {k: v for k, v in state.items() if k != "encode.bias"},
        "the model has no extra": state | {"extra": torch.zeros(1)},
        "decode.bias has NaN": state | {"decode.bias": torch.full((4,), math.nan)},
    }
    for message, changed in cases.items():
        save_file(changed, files / "changed.safetensors")
        with pytest.raises(BadInput, match=message):
            load_weights(module, files / "changed.safetensors")
    torch.save([1, 2], files / "list.pt")
    with pytest.raises(BadInput, match="a state dict"):
        load_weights(module, files / "list.pt")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 4)), r"the shape \(0, 4\)"),
        (np.array(1.0), r"the shape \(\)"),
        (np.array([[1.0, np.nan]]), r"the entry \[0, 1\] is nan"),
        (np.array(["a", "b"]), "its type is"),
        (np.array([1j]), "its type is complex"),
        (np.array([{}], dtype=object), "plain arrays"),
    ],
)
def test_wrong_arrays_are_refused(array: np.ndarray, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(BadInput, match=message):
        load_data(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", array)
    with pytest.raises(BadInput, match=message):
        load_data(tmp_path / "a.npz")


def test_data_files_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    for name, content in [("empty.npy", b""), ("empty.npz", b""), ("junk.npz", b"junk"), ("junk.npy", b"junk" * 9)]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match="the data = "):
            load_data(tmp_path / name)


def test_images_of_a_wrong_size_are_refused_by_shape(files: Path) -> None:
    np.save(files / "big.npy", np.zeros((3, 5)))
    with pytest.raises(BadInput, match=r"shape given to encoder\(x\) = \(\d, 5\).*RuntimeError"):
        run(files, data=files / "big.npy")


def test_a_model_with_a_categorical_decoder_is_evaluated() -> None:
    table = torch.tensor([[0.2, 0.8], [0.6, 0.4]], dtype=torch.float64)
    model = TorchModel(
        prior=lambda: Categorical(torch.tensor([0.5, 0.5], dtype=torch.float64)),
        encoder=lambda x: Categorical(table[x]),
        decoder=lambda z: Categorical(table[z]),
    )
    card = evaluate_model(model, torch.tensor([0, 1, 1, 0]), k=50)
    assert card.upper is not None
    assert card.upper.value.value == pytest.approx(-math.log(2))


def test_the_names_of_papers_stand_for_the_coupled_readings() -> None:
    model = LinearGaussian(1, 2, 0)
    card = evaluate_model(model.torch(), np.zeros((3, 2)), objective="dvae", k=20, simulated=0)
    assert card.objective == "denoising_coupled" and card.judgement is not None
