"""What users hand over as files: models of other libraries, checkpoints of all makes, files that only look like one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boundcheck import cli
from boundcheck.errors import BadInput
from boundcheck.evidence import TrainingObjective, evaluate_log_weights, evaluate_model
from boundcheck.evidence.diagnostics import pareto_k
from boundcheck.evidence.html import to_html
from boundcheck.evidence.latex import to_latex
from boundcheck.evidence.loading import load_data, load_factory, load_weights, make_model, mapped_array
from boundcheck.evidence.plots import plots
from boundcheck.models.torch_model import TorchModel

MODEL = """
import math
import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal
from boundcheck.models.torch_model import TorchModel


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(4, 2)
        self.noise = nn.Dropout(0.5)
        self.decode = nn.Linear(2, 4)

    def prior(self):
        return Independent(Normal(torch.zeros(2), 1.0), 1)

    def encoder(self, x):
        return Independent(Normal(self.encode(x), 0.8), 1)

    def decoder(self, z):
        return Independent(Bernoulli(logits=self.decode(self.noise(z))), 1)


def adapted():
    net = Net()
    model = TorchModel(prior=net.prior, encoder=net.encoder, decoder=net.decoder)
    model.module = net
    return model


def classes():
    return Net


def nothing():
    pass


def loss(model, x):
    return x.sum(-1)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text(MODEL)
    np.save(tmp_path / "x.npy", np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0]])
    return tmp_path


@pytest.fixture
def net(folder: Path) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return load_factory(f"{folder}/model.py:Net")()


Told = Callable[..., tuple[int, str, str]]


@pytest.fixture
def told(folder: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    """The exit code, what is on stdout and what is on stderr; {f} is the folder."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.run(["evaluate", *(each.format(f=folder) for each in arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


SMALL = ("--data", "{f}/x.npy", "--k", "20", "--simulate", "0", "--threads", "1")

# --- weights ---


def test_weights_go_into_the_module_of_a_wrapped_model(folder: Path, net: Any, told: Told) -> None:
    torch.save(net.state_dict(), folder / "w.pt")
    # The same figures as for the module itself: its weights are loaded, and it is put into evaluation mode.
    shown = [told(f"{{f}}/model.py:{name}", "--weights", "{f}/w.pt", *SMALL) for name in ("Net", "adapted")]
    assert shown[0][0] == shown[1][0] != 2
    assert shown[0][1].splitlines()[1:] == shown[1][1].splitlines()[1:]


def test_a_model_without_a_module_has_no_place_for_weights(folder: Path, net: Any) -> None:
    torch.save(net.state_dict(), folder / "w.pt")
    bare = TorchModel(prior=net.prior, encoder=net.encoder, decoder=net.decoder)
    with pytest.raises(BadInput, match="set the attribute `module`"):
        load_weights(bare, folder / "w.pt")


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.ckpt"])
@pytest.mark.parametrize("wrapped", ["state_dict", "model_state_dict", None])
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_checkpoints_of_all_makes(folder: Path, net: Any, name: str, wrapped: str | None, prefix: str) -> None:
    state = {prefix + key: tensor + 1 for key, tensor in net.state_dict().items()}
    expected = {key: tensor + 1 for key, tensor in net.state_dict().items()}
    torch.save({wrapped: state, "epoch": 3} if wrapped else state, folder / name)
    load_weights(net, folder / name)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in net.state_dict().items())


def test_a_prefix_is_dropped_only_if_all_names_then_fit(folder: Path, net: Any) -> None:
    state = {"module." + key: tensor for key, tensor in net.state_dict().items()}
    del state["module.encode.bias"]
    torch.save(state, folder / "w.pt")
    with pytest.raises(BadInput, match="missing from the file"):
        load_weights(net, folder / "w.pt")


def test_weights_of_another_kind_of_numbers_are_refused(folder: Path, net: Any) -> None:
    torch.save({key: tensor.to(torch.int32) for key, tensor in net.state_dict().items()}, folder / "w.pt")
    with pytest.raises(BadInput, match="int32 in the file, float32 in the model"):
        load_weights(net, folder / "w.pt")
    torch.save({key: tensor.half() for key, tensor in net.state_dict().items()}, folder / "w.pt")
    load_weights(net, folder / "w.pt")


# --- Python files ---


@pytest.mark.parametrize(
    ("name", "message"), [("classes", r"returned the class Net: call it, Net\(\)"), ("nothing", "returned None")]
)
def test_what_a_maker_returns_has_to_be_a_model(folder: Path, name: str, message: str) -> None:
    spec = f"{folder}/model.py:{name}"
    with pytest.raises(BadInput, match=message):
        make_model(load_factory(spec), spec)


def test_a_file_that_fails_is_told_with_the_line(folder: Path) -> None:
    (folder / "bad.py").write_text("import math\n\nmath.sqrt(-1)\n")
    with pytest.raises(BadInput, match=r"the model's file = .*ValueError: .*\(line 3\)"):
        load_factory(f"{folder}/bad.py:model")


def test_only_names_that_a_file_defines_are_offered(folder: Path) -> None:
    with pytest.raises(BadInput, match="'Net', 'adapted', 'classes', 'loss', 'nothing'") as error:
        load_factory(f"{folder}/model.py:zzz")
    assert "Bernoulli" not in str(error.value) and "math" not in str(error.value)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("{f}/train.py:loss", "the objective = "),
        ("{f}/model.py", "name the formula or the training loss in the file"),
        ("{f}/model.py:", "name the object in the file"),
        ("iwae", "same = 'elbo': expected an objective with draws of its own; for the end of the curve say iwae:k=20"),
        ("dvae", "write it as a method, or pass corruption=..."),
    ],
)
def test_a_wrong_objective_is_told_as_one(told: Told, objective: str, message: str) -> None:
    code, _, err = told("{f}/model.py:Net", *SMALL, "--objective", objective, "--same-as", "elbo")
    assert code == 2 and message in err and err.count("\n") == 1


# --- arrays ---


def test_an_array_file_is_told_by_what_it_was_given_for(folder: Path) -> None:
    np.savez(folder / "two.npz", a=np.zeros((2, 2)), b=np.ones((2, 2)))
    np.savez(folder / "none.npz")
    np.save(folder / "objects.npy", np.array([{}], dtype=object))
    (folder / "text.npy").write_text("1,2,3\n")
    torch.save({}, folder / "w.pt")  # a zip file like an .npz, but none
    for path, message in (
        ("two.npz", "the log-weights = .*two.npz': expected the name of one array.*: a, b"),
        ("two.npz:c", "array in .*two.npz = 'c'"),
        ("none.npz", "there is no array in the file"),
        ("objects.npy", "it holds Python objects"),
        ("x.npy:a", "it holds a single array"),
        ("w.pt", "save them with numpy.save"),
    ):
        with pytest.raises(BadInput, match=message):
            mapped_array(folder / path, "the log-weights")
    for path, message in (("text.npy", "no file of numpy's"), ("x.npy:a", "it holds a single array")):
        with pytest.raises(BadInput, match=message) as error:
            load_data(folder / path)
        assert "allow_pickle" not in str(error.value)


# --- what the command would have passed over ---


@pytest.mark.parametrize("option", [("--k", "5000"), ("--simulate", "200"), ("--device", "cpu")])
def test_options_of_a_model_are_refused_beside_log_weights_even_at_their_defaults(
    folder: Path, told: Told, option: tuple[str, str]
) -> None:
    np.save(folder / "w.npy", np.random.default_rng(0).normal(size=(40, 3)))
    assert told("--log-weights", "{f}/w.npy")[0] != 2
    code, _, err = told("--log-weights", "{f}/w.npy", *option)
    assert code == 2 and "expected a model, not --log-weights" in err


def test_an_image_shape_without_a_page_is_refused(told: Told) -> None:
    code, _, err = told("{f}/model.py:Net", *SMALL, "--image-shape", "2x2")
    assert code == 2 and "--report beside it" in err


# --- log-weights with something to say ---


def test_weights_of_zero_are_told_by_example() -> None:
    given = np.random.default_rng(0).normal(size=(60, 5))
    given[3:9, 1] = -np.inf
    given[:, 4] = -np.inf
    card = evaluate_log_weights(given)
    page, said = to_html(card), "p(x,z) is 0 at some draws of 2 examples (1, 4)"
    assert said in page and "at all draws of example 4" in page
    assert card.to_json()["weights"]["zero"] == 2
    assert "p(x,z) is 0" not in to_html(evaluate_log_weights(given[:, :1]))


def test_a_card_says_how_many_examples_it_leaves_out() -> None:
    given = np.random.default_rng(0).normal(size=(60, 5))
    given[7, [0, 3]] = np.nan
    card = evaluate_log_weights(given)
    assert "3 examples (2 left out)" in to_html(card) and "3 examples (2 left out)" in to_latex(card)


def test_an_array_that_may_lie_on_its_side_is_told() -> None:
    given = np.random.default_rng(0).normal(size=(60, 5))
    assert not any("read as" in note for note in evaluate_log_weights(given, note="mine").notes)
    assert "mine" in evaluate_log_weights(given, note="mine").notes
    assert any("read as 5 draws of each of 60 examples" in note for note in evaluate_log_weights(given.T).notes)


def test_a_handful_of_weights_has_no_shape() -> None:
    # Fewer than five exceed the smallest, which rounding must not lift above itself.
    tails = -np.sort(-np.random.default_rng(0).normal(-100.0, 1.0, size=(5, 4000)), axis=0)
    assert np.isnan(pareto_k(tails)).all()
    assert np.isnan(pareto_k(tails[:1])).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--report", "{f}/absent/r.html"), "make "),
        (("--report", "{f}"), "a directory is in its place"),
        (("--latex", ""), "--latex = ''"),
        (("--report", "{f}/r.html", "--image-shape", "3x3"), "--image-shape = '3x3': expected a shape of 4 pixels"),
        (("--device", "meta"), "a device of this machine"),
    ],
)
def test_what_cannot_be_written_or_shown_is_told_before_the_work(
    folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    def work(*_: Any, **__: Any) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr("boundcheck.evidence.from_files.evaluate_model", work)
    code, out, err = told("{f}/model.py:Net", *SMALL, *options)
    assert code == 2 and not out and message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--plot", "absent/p.png"), "make absent first"),
        (("--plot", "p.txt"), ".png or .svg or .pdf"),
        (("--seed", str(2**63)), "2**63 - 1"),
    ],
)
def test_the_experiment_is_not_trained_for_a_plot_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: tuple[str, str], message: str
) -> None:
    monkeypatch.setattr("boundcheck.reproduce.dvae.reproduce", lambda *_, **__: pytest.fail("training has begun"))
    assert cli.run(["reproduce", "dvae", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_is_no_defect_of_the_program(
    monkeypatch: pytest.MonkeyPatch, told: Told, error: Exception
) -> None:
    def work(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("boundcheck.evidence.from_files.evaluate_files", work)
    code, _, err = told("{f}/model.py:Net", *SMALL)
    assert code == 2 and "not enough memory" in err and "please report" not in err


def labels(svg: str, texts: tuple[str, ...]) -> list[float]:
    """Where some labels stand, from left to right."""
    places = {text: float(x) for x, text in re.findall(r'<text [^>]*?x="([\d.]+)"[^>]*>([^<]+)</text>', svg)}
    return [places[text] for text in texts]


def test_a_curve_without_a_finite_point_has_its_axis_and_no_grey_line() -> None:
    given = np.random.default_rng(0).normal(size=(600, 3))
    (curve, caption), *_ = plots(evaluate_log_weights(given))
    assert "grey line" in caption
    places = labels(curve, ("1", "5", "50", "600"))  # 500 would be written over 600
    assert np.diff(places).min() > 20 and ">500<" not in curve
    given[:, 1] = -np.inf
    (curve, caption), *_ = plots(evaluate_log_weights(given, objective_values=np.zeros(3)))
    assert "grey line" not in caption
    assert labels(curve, ("1", "5", "50", "600")) == pytest.approx(places, abs=15)


def test_an_example_is_named_by_its_number_in_the_file(folder: Path, told: Told) -> None:
    rows = np.zeros((40, 4), dtype=np.float32)
    rows[::2] = 0.5  # grey: every other example is outside a Bernoulli law's support
    np.save(folder / "x.npy", rows)
    chosen = sorted(np.random.default_rng(0).choice(40, 3, replace=False).tolist())
    grey = [f"x[{number}]" for number in chosen if number % 2 == 0]
    assert grey and any(number > 2 for number in chosen if number % 2 == 0)  # no number of a row could pass for one
    code, _, err = told("{f}/model.py:Net", *SMALL, "--limit", "3")
    assert code == 2 and any(name in err for name in grey) and "in the support of" in err


def test_a_loss_without_a_value_names_the_example_that_it_was_given(folder: Path) -> None:
    def encoder(x: torch.Tensor) -> Any:
        mean = torch.where(x[:, :1] > 8, torch.nan, x / 2)  # the first two examples have no weights
        return torch.distributions.Independent(torch.distributions.Normal(mean, 0.8, validate_args=False), 1)

    def normal(mean: torch.Tensor) -> Any:
        return torch.distributions.Independent(torch.distributions.Normal(mean, 1.0), 1)

    model = TorchModel(prior=lambda: normal(torch.zeros(2)), encoder=encoder, decoder=normal)
    x = torch.tensor([[9.0, 9.0], [9.0, 9.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    loss = TrainingObjective(lambda model, x: torch.where(x[:, 0] == 2.0, torch.nan, x[:, 0]), sign="loss", name="loss")
    with pytest.raises(BadInput, match=r"the value of loss at x\[3\] = nan"):
        evaluate_model(model, x, objective=loss, k=20, simulated=0, threads=1)


PYTHAE = """
from pythae.models import VAE, VAEConfig, VAMP, VAMPConfig


def vae(kind=VAE, config=VAEConfig):
    return kind(config(input_dim=(1, 2, 2), latent_dim=2, reconstruction_loss="bce"))


def wrapped():
    from boundcheck.adapters.pythae import from_pythae

    return from_pythae(vae())


def vamp():
    return vae(VAMP, VAMPConfig)
"""


def test_a_model_of_pythae_is_taken_with_the_weights_that_pythae_saves(folder: Path, told: Told) -> None:
    pytest.importorskip("pythae")
    (folder / "theirs.py").write_text(PYTHAE)
    np.save(folder / "x.npy", np.eye(4, dtype=np.float32).reshape(4, 1, 2, 2))
    with torch.random.fork_rng():
        load_factory(f"{folder}/theirs.py:vae")().save(str(folder / "saved"))
    shown = [told(f"{{f}}/theirs.py:{name}", "--weights", "{f}/saved/model.pt", *SMALL) for name in ("vae", "wrapped")]
    assert shown[0][0] == shown[1][0] != 2
    assert shown[0][1].splitlines()[1:] == shown[1][1].splitlines()[1:]
    code, _, err = told("{f}/theirs.py:vamp", *SMALL)
    assert code == 2 and "expected one of pythae's VAE" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"objective": lambda model, x: x.sum(-1)},
            r"whose sign is declared; decorate it .*as a formula: AttributeError",
        ),
        ({"objective": 3}, "objective = 3: expected a name, a formula, or a training_objective"),
        ({"same": 3}, "same = 3: expected the name of an objective"),
        ({"indices": [7]}, "indices = .*expected 4 numbers"),
    ],
)
def test_what_is_handed_over_in_python_is_told_like_the_rest(net: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        evaluate_model(net.eval(), np.eye(4, dtype=np.float32), k=5, simulated=0, threads=1, **options)
