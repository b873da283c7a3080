"""The card's faces and its other door: pages that need nothing else, tables, log-weights of any framework, commands."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Independent, Normal

from boundcheck import cli
from boundcheck.errors import BadInput
from boundcheck.evaluators.values import Approximate
from boundcheck.evidence import EvidenceCard, TrainingObjective, evaluate_log_weights, evaluate_model
from boundcheck.evidence.html import as_image, to_html
from boundcheck.evidence.latex import to_latex
from boundcheck.evidence.training import estimate
from boundcheck.models.torch_model import TorchModel

CODE = "<script>alert('x')</script> & \"co\""


def bernoulli_model() -> TorchModel:
    """Nine pixels, two latents."""
    directions = torch.linspace(-2, 2, 18).reshape(2, 9)
    return TorchModel(
        prior=lambda: Independent(Normal(torch.zeros(2), 1.0), 1),
        encoder=lambda x: Independent(Normal(x @ directions.T / 4, 0.9), 1),
        decoder=lambda z: Independent(Bernoulli(logits=z @ directions), 1),
    )


DATA = (torch.arange(12 * 9).reshape(12, 9) * 7919 % 13 < 6).float()


@pytest.fixture(scope="module")
def card() -> EvidenceCard:
    objective = TrainingObjective(lambda model, x: -x.sum(-1) - 20 + torch.randn(len(x)), sign="bound", name=CODE)
    options: dict[str, Any] = {"k": 60, "replicates": 30, "simulated": 20, "ais": 5}
    return evaluate_model(
        bernoulli_model(), DATA, objective=objective, model_name=CODE, data_name=CODE, note=CODE, **options
    )


# --- what is on it ---


def test_everything_is_on_the_card(card: EvidenceCard) -> None:
    data = json.loads(json.dumps(card.to_json(), allow_nan=False))
    for part in ("ais", "bidirectional", "quadrature", "simulated", "interval", "iwae", "weights", "versions"):
        assert data[part], part
    assert data["quadrature"]["label"] == "estimate"
    assert 0 <= data["ais"]["mean_acceptance"] <= 1
    assert data["weights"]["draws"] == 60
    assert "all data are 0 or 1" in data["likelihood"]
    assert data["iwae"][0]["bits_per_dimension"] == pytest.approx(-data["iwae"][0]["mean"] / math.log(2) / 9)
    row = data["per_example"][3]
    assert set(row) >= {"example", "ELBO", "log mean weight", "gap", "lower bound", "ESS", "Pareto k", "quadrature"}
    assert data["error_probability"] <= data["alpha"] / data["checks"] * 2


def test_the_interval_quadrature_and_weights_agree(card: EvidenceCard) -> None:
    assert card.grid is not None and card.annealed is not None
    truth = card.grid.mean.value
    assert card.interval.lower < truth
    assert card.annealed.bound(1e-6) < truth
    assert abs(card.curve.best.mean.mean - truth) < 0.2
    assert (card.examples.lower <= card.examples.grid).all()


# --- pages ---


class Reader(HTMLParser):
    """What a browser would look at: tags that are opened and closed, attributes, text."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_a_page_is_whole_and_asks_no_network(card: EvidenceCard) -> None:
    page = to_html(card)
    reader = Reader(page)
    assert reader.open == []
    for tag, name, value in reader.attributes:
        if name in {"src", "href", "xlink:href", "action", "srcset"}:
            assert value.startswith(("#", "data:")), (tag, name, value)
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    assert sum(tag == "svg" for tag, name, _ in reader.attributes if name == "viewbox") == 3
    assert sum(tag == "img" for tag, name, _ in reader.attributes if name == "src") == 12


def test_text_of_the_user_is_text(card: EvidenceCard) -> None:
    page = to_html(card)
    assert page.count("<script>") == 1  # the page's own
    assert CODE not in page
    assert CODE in "".join(Reader(page).text)


def test_ids_on_a_page_are_unique_and_there(card: EvidenceCard) -> None:
    page = to_html(card)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", page)) | set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


def test_a_page_shows_the_first_thousand_examples() -> None:
    found = evaluate_log_weights(np.random.default_rng(0).normal(size=(20, 1100)))
    page = to_html(found)
    assert "The first 1000 of 1100 examples" in page
    assert page.count("<tr>") < 1050
    assert found.to_json()["per_example_left_out"] == 100


@pytest.mark.parametrize(
    ("shape", "given", "expected"),
    [
        ((64,), None, (8, 8)),
        ((28, 20), None, (28, 20)),
        ((1, 5, 6), None, (5, 6)),
        ((3, 5, 6), None, (5, 6, 3)),
        ((560,), (28, 20), (28, 20)),
        ((12,), (2, 2), (2, 2, 3)),
        ((7,), None, None),
        ((), None, None),
        ((2, 5, 6), None, None),
        ((4,), None, None),
    ],
)
def test_images_are_recognised(shape: tuple, given: tuple | None, expected: tuple | None) -> None:
    image = as_image(np.linspace(-3, 9, max(1, math.prod(shape))).reshape(shape), given)
    assert (None if image is None else image.shape) == expected
    if image is not None:
        assert image.min() == 0 and image.max() == 1


def test_an_image_shape_that_does_not_fit_is_refused(card: EvidenceCard) -> None:
    with pytest.raises(BadInput, match="--image-shape"):
        to_html(card, image_shape=(4, 4))


def test_a_table_for_latex(card: EvidenceCard) -> None:
    table = to_latex(card)
    rows = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert all(len(re.findall(r"(?<!\\)&", row)) == 4 for row in rows)
    assert len(rows) == 1 + 4 + 1 + 2 + 1 + 1 + 1
    assert f"${card.value.mean:.3f}$" in table
    assert "<" not in table and table.count("{") - table.count(r"\{") == table.count("}") - table.count(r"\}")
    for label in ("bound in expectation", "bound with probability 0.999"):  # said once, below, and marked in the rows
        assert table.count(label) == 1


# --- log-weights of any framework ---


def weights(draws: int = 400, examples: int = 6) -> np.ndarray:
    return np.random.default_rng(3).normal(-0.5, 1.0, size=(draws, examples)) + np.arange(examples)


def test_log_weights_give_the_figures_that_they_define(tmp_path: Path) -> None:
    given = weights()
    found = evaluate_log_weights(given)
    assert found.curve.points[0].mean.mean == pytest.approx(given.mean())
    largest = np.logaddexp.reduce(given, axis=0) - math.log(len(given))
    assert found.examples.log_mean_weight == pytest.approx(largest)
    assert found.interval.lower < np.arange(6).mean()
    assert found.judgement is not None and found.judgement.outcome.value == "holds"
    np.save(tmp_path / "w.npy", given)
    np.save(tmp_path / "t.npy", np.asfortranarray(given))
    np.savez(tmp_path / "w.npz", mine=given.T, other=given)
    same = [
        evaluate_log_weights(tmp_path / "w.npy"),
        evaluate_log_weights(f"{tmp_path}/t.npy"),
        evaluate_log_weights(f"{tmp_path}/w.npz:mine", examples_first=True),
    ]
    for each in same:
        assert each.value == found.value
        assert each.interval.lower == pytest.approx(found.interval.lower, abs=1e-12)


def test_blocks_do_not_change_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    given = weights(999)
    whole = evaluate_log_weights(given)
    monkeypatch.setattr("boundcheck.evidence.from_log_weights._BLOCK", 50)
    for array, first in ((given, False), (np.ascontiguousarray(given.T), True)):
        found = evaluate_log_weights(array, examples_first=first)
        assert found.curve.best.mean.mean == pytest.approx(whole.curve.best.mean.mean, abs=1e-12)
        assert found.interval.lower == pytest.approx(whole.interval.lower, abs=1e-9)


def test_objective_values_are_judged_like_any_objective() -> None:
    given, rng = weights(), np.random.default_rng(4)
    truth = Approximate(2.5, 1e-9)  # the mean of 0..5
    for shift, expected in ((-1.0, "holds"), (1.0, "violated"), (0.0, "undecided")):
        values = np.arange(6) + shift + 0.1 * rng.normal(size=(100, 6))
        found = evaluate_log_weights(given, objective_values=values, log_evidence=truth)
        assert found.outcome is not None and found.outcome.value == expected
        assert found.objective == "objective values"
    exact = evaluate_log_weights(given, objective_values=np.arange(6) - 1.0)
    assert exact.outcome is not None and exact.outcome.value == "holds"
    above = evaluate_log_weights(given, objective_values=np.arange(6) + 1.0)
    assert above.outcome is not None and above.outcome.value == "undecided"
    assert above.judgement is not None and "an upper bound" in above.judgement.decide_by


def test_an_example_with_nan_is_named_and_the_others_are_evaluated() -> None:
    given = weights()
    without = evaluate_log_weights(np.delete(given, 2, axis=1))
    given[7, 2] = math.nan
    found = evaluate_log_weights(given, objective_values=np.where(np.arange(6) == 2, math.nan, -1.0))
    assert found.failed == {2: "the log-weight of draw 7 is NaN"}
    assert found.examples.index.tolist() == [0, 1, 3, 4, 5]
    assert found.curve.best.mean == without.curve.best.mean
    assert without.interval.lower - 0.1 < found.interval.lower < without.interval.lower  # its draws chose it
    json.dumps(found.to_json(), allow_nan=False)


def test_weights_of_zero_are_weights() -> None:
    given = weights()
    given[np.random.default_rng(1).random(given.shape) < 0.5] = -math.inf
    found = evaluate_log_weights(given)
    assert found.curve.points[0].mean.mean == -math.inf
    assert math.isfinite(found.interval.lower) and found.interval.lower < 2.5
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (np.array([[0.0, math.inf]]), {}, r"log_weights\[0, 1\] = inf"),
        (np.full((3, 2), math.nan), {}, "all examples fail"),
        (np.zeros(3), {}, r"shape of log_weights = \(3,\)"),
        (np.zeros((0, 3)), {}, r"shape of log_weights = \(0, 3\)"),
        (np.array([["a"]]), {}, "type of log_weights"),
        (np.zeros((9, 2)), {"alpha": 0.7}, "alpha"),
        (np.zeros((9, 2)), {"objective_values": np.zeros(3)}, "shape of objective_values"),
        (np.zeros((9, 2)), {"objective_values": np.zeros((1, 2))}, "shape of objective_values"),
        (np.zeros((9, 2)), {"objective_values": np.array([0.0, math.nan])}, r"objective_values\[1\]"),
    ],
)
def test_what_is_no_log_weight_is_refused(given: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        evaluate_log_weights(given, **options)


# --- models with something wrong ---


def test_an_example_whose_weights_are_nan_is_named_and_the_others_are_evaluated() -> None:
    good = bernoulli_model()

    def encoder(x: torch.Tensor) -> Independent:
        bad = (x == DATA[4]).all(-1, keepdim=True)
        return Independent(Normal(torch.where(bad, math.nan, 0.0) + x[:, :2] / 4, 0.9, validate_args=False), 1)

    model = TorchModel(
        prior=lambda: Independent(Normal(torch.zeros(2), 1.0), 1),
        encoder=encoder,
        decoder=lambda z: good.law("likelihood", z),
    )
    found = evaluate_model(model, DATA, k=20, indices=np.arange(100, 112), grid=False)
    assert list(found.failed) == [104]
    assert len(found.examples.index) == 11 and 104 not in found.examples.index
    assert found.settings["examples"] == 11


def test_a_model_that_cannot_be_simulated_is_judged_without_that_check() -> None:
    class Odd(Bernoulli):
        def sample(self, sample_shape: Any = ()) -> torch.Tensor:
            if self.batch_shape[0] == 17:
                raise NotImplementedError("no draws")
            return super().sample(torch.Size(sample_shape))

    good = bernoulli_model()
    directions = torch.linspace(-2, 2, 18).reshape(2, 9)
    model = TorchModel(
        prior=lambda: good.law("prior"),
        encoder=lambda x: good.law("encoder", x),
        decoder=lambda z: Independent(Odd(logits=z @ directions), 1),
    )
    objective = TrainingObjective(lambda model, x: -50 + torch.randn(len(x)), sign="bound", name="mine")
    found = evaluate_model(model, DATA, k=30, objective=objective, replicates=20, simulated=17, grid=False)
    assert found.outcome is not None and found.outcome.value == "holds"
    assert found.simulated is None
    assert any("simulated" in note for note in found.notes)


def test_where_memory_does_not_suffice_the_chunk_is_halved_and_the_card_says_so() -> None:
    good = bernoulli_model()

    def tight(rows: int) -> TorchModel:
        def decoder(z: torch.Tensor) -> Any:
            if len(z) > rows:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return good.law("likelihood", z)

        return TorchModel(prior=lambda: good.law("prior"), encoder=lambda x: good.law("encoder", x), decoder=decoder)

    options: dict[str, Any] = {"k": 40, "replicates": 50, "simulated": 0, "grid": False, "objective": "iwae:k=2"}
    plenty, little = (evaluate_model(tight(rows), DATA, **options) for rows in (10**9, 40))
    assert little.curve.best.mean.mean == pytest.approx(plenty.curve.best.mean.mean, rel=1e-6)
    assert little.value.mean == pytest.approx(plenty.value.mean, rel=1e-6)
    assert any(note.startswith("out of memory at iwae:k=2: the chunk was halved") for note in little.notes)
    assert not any("memory" in note for note in plenty.notes)


def test_a_loss_that_is_too_large_for_memory_says_what_to_do() -> None:
    def loss(model: Any, x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(BadInput, match="smaller --batch"):
        evaluate_model(bernoulli_model(), DATA, k=5, objective=TrainingObjective(loss, sign="loss"))


def test_a_loss_with_a_generator_of_its_own_is_random() -> None:
    own = torch.Generator().manual_seed(0)
    noisy = TrainingObjective(lambda model, x: torch.randn(len(x), generator=own), sign="bound")
    found = estimate(noisy, None, DATA, replicates=10)
    assert found.random and found.mean.monte_carlo_error > 0.05
    still = estimate(TrainingObjective(lambda model, x: x.sum(-1), sign="bound"), None, DATA, replicates=10)
    assert not still.random and still.at(1e-3) == Approximate(float(DATA.sum(-1).mean()), 0.0)


def test_a_training_loss_called_elbo_is_judged_as_the_users_own() -> None:
    def elbo(model: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x),), 3.0) + 0.01 * torch.randn(len(x))

    objective = TrainingObjective(elbo, sign="bound")
    found = evaluate_model(
        bernoulli_model(), DATA, k=20, objective=objective, same="elbo", replicates=20, simulated=0, grid=False
    )
    assert found.objective == "elbo (yours)"
    assert found.outcome is not None and found.outcome.value == "violated"
    assert found.identity is not None and found.identity.outcome.value == "violated"


# --- the command ---

FILE = """
import torch
from torch.distributions import Bernoulli, Independent, Normal
from boundcheck.evidence import training_objective

D = torch.linspace(-2, 2, 18).reshape(2, 9)


class Model:
    def prior(self):
        return Independent(Normal(torch.zeros(2), 1.0), 1)

    def encoder(self, x):
        return Independent(Normal(x @ D.T / 4, 0.9), 1)

    def decoder(self, z):
        return Independent(Bernoulli(logits=z @ D), 1)


def elbo_of(model, x):
    law = model.encoder(x)
    z = law.rsample()
    return model.decoder(z).log_prob(x) + model.prior().log_prob(z) - law.log_prob(z)


@training_objective(sign="loss", unit="nats/dim", per="batch")
def loss(model, x):
    return -elbo_of(model, x).mean() / 9


@training_objective(sign="loss")
def half(model, x):
    return -0.5 * elbo_of(model, x)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m.py").write_text(FILE)
    np.save(tmp_path / "x.npy", DATA.numpy())
    np.save(tmp_path / "w.npy", weights())
    np.save(tmp_path / "v.npy", np.arange(6) - 1.0)
    return tmp_path


class Result(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Result]


@pytest.fixture
def evaluate(folder: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """`boundcheck evaluate` on the model of FILE, or with `model=False` without one; {f} is its folder."""

    def call(*options: str, model: bool = True) -> Result:
        small = ["--k", "40", "--replicates", "100", "--simulate", "30", "--threads", "1"]
        given = [f"{folder}/m.py:Model", "--data", str(folder / "x.npy"), *small] if model else []
        code = cli.run(["evaluate", *given, *(each.format(f=folder) for each in options)])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


def test_a_training_loss_is_judged_by_the_command(folder: Path, evaluate: Call) -> None:
    pages = ["--report", "{f}/r.html", "--latex", "{f}/t.tex"]
    found = evaluate("--objective", "{f}/m.py:loss", "--same-as", "elbo", "--json", *pages)
    data = json.loads(found.out)
    assert found.code == 0 and data["verdict"] == "holds", found.err
    assert data["identity"]["outcome"] == "undecided"
    assert (folder / "r.html").read_text().startswith("<!doctype html>")
    assert r"\toprule" in (folder / "t.tex").read_text()


def test_another_objective_than_the_one_declared_is_a_violation(evaluate: Call) -> None:
    found = evaluate("--objective", "{f}/m.py:half", "--same-as", "elbo", "--json")
    assert found.code == 1
    assert json.loads(found.out)["identity"]["outcome"] == "violated"


def test_the_sign_can_be_declared_on_the_command_line(evaluate: Call) -> None:
    found = evaluate("--objective", "{f}/m.py:elbo_of", "--sign", "bound", "--same-as", "iwae:k=1")
    assert found.code in (0, 3), found.err
    assert "agrees with the iwae, k = 1" in found.out


def test_a_loss_that_was_changed_beside_finished_work_is_told_in_one_line(folder: Path, evaluate: Call) -> None:
    options = ["--objective", "{f}/m.py:half", "--resume", "{f}/kept", "--json"]
    first = evaluate(*options)
    assert first.code in (0, 3) and evaluate(*options) == first
    (folder / "m.py").write_text(FILE.replace("-0.5 *", "-0.6 *"))
    found = evaluate(*options)
    assert found.code == 2 and found.out == "" and found.err.count("\n") == 1
    assert re.search(r"in objective-half, its (source is|objective gave other values)", found.err)


def test_log_weights_are_judged_by_the_command(evaluate: Call) -> None:
    files = ["--log-weights", "{f}/w.npy", "--objective-values", "{f}/v.npy", "--json"]
    found = evaluate(*files, model=False)
    assert found.code == 0, found.err
    assert json.loads(found.out)["objective"] == "objective values"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--objective", "{f}/m.py:elbo_of"], "--sign bound or --sign loss"),
        (["--objective", "elbo", "--sign", "loss"], "--sign"),
        (["--objective", "renyi:alpha=x"], "NAME:parameter=number"),
        (["--objective", "renyi:beta=1"], "needs a value for alpha"),
        (["--same-as", "elob"], "did you mean 'elbo'"),
        (["--image-shape", "28"], "HEIGHTxWIDTH"),
        (["--report", "{f}/none/r.html"], "a folder that there is"),
        (["--report", "{f}"], "a file that can be written"),
        (["--log-weights", "{f}/w.npy"], "no model beside --log-weights"),
        (["--objective-values", "{f}/v.npy"], "--log-weights beside it"),
        (["--resume", "{f}/x.npy"], "resume"),
    ],
)
def test_wrong_options_are_told_in_one_line(evaluate: Call, options: list[str], message: str) -> None:
    found = evaluate(*options)
    assert found.code == 2
    assert message in found.err and "Traceback" not in found.out
    assert found.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "MODEL"),
        (["--log-weights", "{f}/none.npy"], "there is no file"),
        (["--log-weights", "{f}/m.py"], "save them with numpy.save"),
        (["--log-weights", "{f}/w.npy", "--limit", "3"], "--limit"),
        (["--log-weights", "{f}/w.npy", "--objective", "iwae"], "--objective-values"),
    ],
)
def test_wrong_options_without_a_model_are_told_in_one_line(evaluate: Call, options: list[str], message: str) -> None:
    found = evaluate(*options, model=False)
    assert found.code == 2
    assert message in found.err and found.err.count("\n") == 1
