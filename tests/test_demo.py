"""The demonstration runs, repeats, learns, and its files work with `evaluate_files`; its figures are not tested."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from matplotlib.image import imread
from rich.console import Console

from boundcheck.catalogue.objectives import denoising_coupled
from boundcheck.demo import digits_vae
from boundcheck.demo.__main__ import main
from boundcheck.demo.run import run
from boundcheck.errors import BadInput
from boundcheck.evaluators.monte_carlo import evaluate_mean
from boundcheck.evidence import EvidenceCard, evaluate_files
from boundcheck.reproduce.dvae import digits, train
from boundcheck.reproduce.dvae.training import Recipe


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, EvidenceCard], str]:
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    console = Console(record=True, width=120)
    return out, run(out, quick=True, console=console), console.export_text()


def test_it_leaves_its_files_and_prints_both_cards(demonstration: tuple) -> None:
    out, cards, text = demonstration
    assert set(cards) == {"vae", "dvae"}
    for kind, card in cards.items():
        assert json.loads((out / f"{kind}.json").read_text())["objective"] == "denoising_decoupled"
        assert set(card.estimates) == {"elbo", "denoising_coupled", "denoising_decoupled"}
        assert card.judgements["denoising_coupled"].outcome.value != "violated"
        assert f"{card.value.mean:.3f}" in text
        page = (out / f"{kind}.html").read_text()
        assert f"{card.value.mean:.3f}" in page
        assert "data:image/png" in page and page.count("<svg") == 3
    picture = imread(out / "iwae.png")
    assert picture.shape[1] > 1000
    assert picture.std() > 0.01


def test_its_files_can_be_evaluated(demonstration: tuple) -> None:
    out, cards, _ = demonstration
    card = evaluate_files(
        f"{digits_vae.__file__}:vae", data=out / "digits_test.npz", weights=out / "vae.safetensors", k=60, simulated=10
    )
    assert card.curve.best.mean == cards["vae"].curve.best.mean


def test_the_digits_are_binary_and_split_by_the_seed() -> None:
    images = digits(0)
    assert images.train.shape == (1437, 64)
    assert images.test.shape == (360, 64)
    assert set(np.unique(images.train)) == {0, 1}
    assert np.array_equal(digits(0).test, images.test)
    assert not np.array_equal(digits(1).test, images.test)


def test_its_models_learn() -> None:
    images = digits(0)
    x = torch.as_tensor(images.test[:100], dtype=torch.float32)
    trained = train(digits_vae.DigitsVAE, images, "denoising_coupled", Recipe(4), seed=1)

    def coupled(model: torch.nn.Module) -> float:
        return evaluate_mean(denoising_coupled, model, x, n=20).mean

    assert coupled(digits_vae.vae()) < -40  # at least 64 log 2 = 44.4 less what chance gives
    assert coupled(trained) > -32


def test_corruption_replaces_pixels_by_fair_coins() -> None:
    x = torch.tensor([[0.0, 1.0] * 32])
    probabilities = digits_vae.vae().corruption(x).mean[0, :2]
    assert probabilities.tolist() == pytest.approx([digits_vae.LEVEL / 2, 1 - digits_vae.LEVEL / 2])


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="--out"):
        run(tmp_path / "file" / "below", quick=True)
    result = CliRunner().invoke(main, ["--out", str(tmp_path / "file" / "below"), "--quick"])
    assert result.exit_code == 2
    assert "expected a folder" in result.output
    assert "Traceback" not in result.output


def test_the_command_prints_how_to_go_on(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--out", str(tmp_path), "--quick"])
    assert result.exit_code == 0
    assert "boundcheck evaluate" in result.output
    assert "digits_vae.py:vae" in result.output
