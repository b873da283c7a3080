"""The denoising experiment at a small size: its laws hold on every model, and the runaway model is caught."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.distributions import Independent, Normal

from boundcheck.catalogue import objectives
from boundcheck.cli import commands
from boundcheck.errors import BadInput, BoundcheckError, UnknownName
from boundcheck.evaluators.monte_carlo import evaluate
from boundcheck.reproduce.dvae import DenoisingVAE, Experiment, Images, digits, read_images, reproduce, train
from boundcheck.reproduce.dvae.training import OBJECTIVES, RUNAWAY, WEIGHTS, Recipe


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    images = digits(0).first(None, 20, 0)
    return reproduce(images, names=("vae", "decoupled"), recipe=Recipe(epochs=12), hidden=(32,), level=0.3, k=100)


def test_the_runaway_model_exceeds_what_any_model_of_binary_images_can_have(experiment: Experiment) -> None:
    (row,) = (row for row in experiment.rows if row.name == "decoupled")
    assert row.cells["decoupled"] > 0 > row.cells["IWAE-100"]
    assert row.verdicts["denoising_decoupled"] == "violated"
    assert row.verdicts["denoising_coupled"] != "violated"


def test_a_plain_vae_is_found_guilty_of_nothing(experiment: Experiment) -> None:
    (row,) = (row for row in experiment.rows if row.name == "vae")
    assert "violated" not in row.verdicts.values()
    assert row.cells["ELBO"] < row.cells["IWAE-100"]


def test_the_coupled_reading_is_below_the_elbo_of_the_mixture_and_the_decoupled_one_above(
    experiment: Experiment,
) -> None:
    """SIVI_0 <= SIVI_K <= the ELBO of q~ <= SIVI_K without <= SIVI_1 without (Yin & Zhou 2018), within 6 errors."""
    for row in experiment.rows:
        coupled, decoupled = (row.card.estimates[f"denoising_{name}"] for name in ("coupled", "decoupled"))
        ladder = [coupled, *row.marginal_elbo, decoupled]
        for lower, higher in pairwise(ladder):
            assert lower.mean <= higher.mean + 6 * (lower.monte_carlo_error + higher.monte_carlo_error)


def test_the_history_follows_the_runaway_to_its_end(experiment: Experiment) -> None:
    moments = experiment.history["decoupled"]
    assert moments[0].updates == 1
    assert moments[-1].decoupled - moments[-1].iwae > 100 > abs(moments[0].decoupled - moments[0].iwae)
    assert "vae" not in experiment.history


def test_the_result_is_json(experiment: Experiment) -> None:
    found = json.loads(json.dumps(experiment.to_json(), allow_nan=False))
    assert [row["name"] for row in found["rows"]] == ["vae", "decoupled"]
    assert found["rows"][1]["below the evidence"] == {"denoising_coupled": "holds", "denoising_decoupled": "violated"}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_objectives_are_the_catalogues_formulas(name: str) -> None:
    """The mean of many draws of each training objective is the formula's value: |z| < 6 fails at 2e-9 a comparison."""
    torch.manual_seed(0)
    model = DenoisingVAE(6, (5,), 2, level=0.3).double().eval()
    x = torch.tensor([[1.0, 0, 1, 0, 0, 1]]).double()
    formula = {"diwae": "diwae_coupled"}.get(name, name)
    extra = {"k": WEIGHTS} if "iwae" in name else {}
    (value,) = evaluate(getattr(objectives, formula), model, x, n=20_000, seed=1, **extra)
    with torch.no_grad():
        draws = OBJECTIVES[name](model, x.repeat(20_000, 1))
    error = float(draws.std()) / 20_000**0.5
    assert abs(float(draws.mean()) - value.mean) < 6 * (error**2 + value.standard_error**2) ** 0.5


def test_corruptions_are_those_of_the_released_code() -> None:
    """Salt and pepper at level p: a pixel is picked with probability p and is then 1 with probability p."""
    model = DenoisingVAE(2, (3,), 1, level=0.2)
    probabilities = model.corruption(torch.tensor([[0.0, 1.0]])).base_dist.probs  # type: ignore[attr-defined]
    assert torch.allclose(probabilities, torch.tensor([[0.2 * 0.2, 0.8 + 0.2 * 0.2]]))
    noise = DenoisingVAE(2, (3,), 1, "gaussian", 0.5).corruption(torch.tensor([[0.0, 1.0]]))
    assert torch.equal(noise.mean, torch.tensor([[0.0, 1.0]])) and torch.allclose(noise.stddev, torch.tensor(0.5))


def test_a_seed_gives_the_same_weights_and_leaves_the_users_state_alone() -> None:
    images = digits(0).first(64, 5, 0)
    state = torch.random.get_rng_state()
    first, again, other = (
        train(lambda: DenoisingVAE(64, (8,), 2), images, "elbo", Recipe(2), seed=seed).state_dict()
        for seed in (3, 3, 4)
    )
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_watching_does_not_change_the_training() -> None:
    images = digits(0).first(64, 5, 0)
    make = lambda: DenoisingVAE(64, (8,), 2)  # noqa: E731
    seen: list[int] = []

    def watch(updates: int, model: torch.nn.Module) -> None:
        seen.append(updates)
        torch.randn(7)

    plain = train(make, images, "elbo", Recipe(3, batch=8)).state_dict()
    watched = train(make, images, "elbo", Recipe(3, batch=8), watch=watch).state_dict()
    assert all(torch.equal(plain[key], watched[key]) for key in plain)
    assert seen[:3] == [1, 2, 3] and seen[-1] == 24


def test_training_stops_at_the_first_runaway_and_says_when_gradients_are_not_finite() -> None:
    images = Images(np.zeros((16, 2), np.float32), np.zeros((2, 2), np.uint8), None, "zeros")

    class Liar(torch.nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = torch.nn.Parameter(torch.tensor(value))

        def encoder(self, x: torch.Tensor) -> object:
            return Independent(Normal(x, 1.0), 1)

        def decoder(self, z: torch.Tensor) -> object:
            return SimpleNamespace(log_prob=lambda x: self.value * self.value.sqrt() + 0 * x.sum(1))

        def prior(self) -> object:
            return Independent(Normal(torch.zeros(2), 1.0), 1)

    epochs: list[int] = []
    train(lambda: Liar(RUNAWAY), images, "elbo", Recipe(9), after_epoch=epochs.append)
    assert epochs == [1]
    with pytest.raises(BadInput, match="not finite in epoch 1"):
        train(lambda: Liar(-1.0), images, "elbo", Recipe(9))


# --- data and the command line -------------------------------------------------------------------------------------


def test_grey_packed_and_binary_images_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, size=(50, 4, 5)).astype(np.uint8)
    bits = rng.integers(0, 2, size=(50, 20)).astype(np.uint8)
    np.savez(tmp_path / "grey.npz", train=grey, test=grey)
    np.savez(tmp_path / "bits.npz", train=np.packbits(bits, axis=1), test=np.packbits(bits[:3], axis=1))
    np.savez(tmp_path / "binary.npz", train=bits, test=bits[:4])
    found = read_images(tmp_path / "grey.npz", seed=1)
    assert np.allclose(found.train, grey.reshape(50, 20) / 255) and found.shape == (4, 5) and found.pixels == 20
    assert set(np.unique(found.test)) == {0, 1}
    assert abs(float((found.test - found.train).mean())) < 6 * 0.5 / 1000**0.5, "false alarm below 1e-8"
    packed = read_images(tmp_path / "bits.npz", pixels=20)
    assert np.array_equal(packed.train, bits) and np.array_equal(packed.test, bits[:3])
    assert np.array_equal(read_images(tmp_path / "binary.npz").test, bits[:4])


@pytest.mark.parametrize(
    ("arrays", "pixels", "message"),
    [
        ({"train": np.zeros((3, 4))}, None, "test"),
        ({"train": np.zeros((3, 4)), "test": np.zeros((3, 5))}, None, "the shape of test"),
        ({"train": np.full((3, 4), 2.5), "test": np.zeros((3, 4))}, None, "from 0.0 to 2.5|from 2.5 to 2.5"),
        ({"train": np.full((3, 4), -1), "test": np.zeros((3, 4))}, None, "grey values"),
        ({"train": np.zeros((3, 4), np.uint8), "test": np.zeros((3, 4), np.uint8)}, 40, "packed"),
    ],
)
def test_wrong_images_are_refused(arrays: dict, pixels: int | None, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "images.npz", **arrays)
    with pytest.raises(BoundcheckError, match=message):
        read_images(tmp_path / "images.npz", pixels=pixels)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: DenoisingVAE(4, (3,), 2, "blur"), "corruption = 'blur'"),
        (lambda: DenoisingVAE(4, (3,), 2, level=1.0), "level = 1.0"),
        (lambda: DenoisingVAE(4, (3,), 2, "gaussian", -1.0), "level = -1.0"),
        (lambda: reproduce(digits(0).first(8, 2, 0), names=()), "models"),
    ],
)
def test_wrong_settings_are_refused(made: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        made()  # type: ignore[operator]
    with pytest.raises(UnknownName):
        reproduce(digits(0).first(8, 2, 0), names=("gan",))


def test_the_command_keeps_what_evaluate_needs(tmp_path: Path) -> None:
    out, picture = tmp_path / "out", tmp_path / "dvae.svg"
    options = [
        "--models",
        "dvae",
        "--epochs",
        "1",
        "--hidden",
        "8",
        "--k",
        "20",
        "--limit",
        "5",
        "--train-limit",
        "200",
    ]
    found = CliRunner().invoke(
        commands, ["reproduce", "dvae", *options, "--out", str(out), "--plot", str(picture), "--json"]
    )
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["rows"][0]["name"] == "dvae" and picture.read_text().lstrip().startswith("<?xml")
    files = [f"{out / 'models.py'}:dvae", "--weights", str(out / "dvae.safetensors"), "--data", str(out / "test.npz")]
    card = CliRunner().invoke(commands, ["evaluate", *files, "--k", "20", "--json"])
    assert json.loads(card.stdout)["objective"] == "elbo", card.output
