"""Six models by one recipe, and for each both readings of the denoising objective beside its evidence estimates.

Im et al. (2015) claim log p(x) >= L >= the ELBO of q~ = E_{c(x~|x)} q(.|x~). The coupled reading is what they trained;
the decoupled one is what their formula can be read to say. On trained models the two can be close, since an encoder
trained on corrupted images learns to ignore the corruption. The last model is trained on the decoupled reading itself:
what it gains has nothing to do with the evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from boundcheck.catalogue import objectives
from boundcheck.errors import BadInput, UnknownName
from boundcheck.evaluators.averages import DatasetMean
from boundcheck.evaluators.monte_carlo import evaluate_mean
from boundcheck.evidence.card import EvidenceCard
from boundcheck.evidence.evaluation import evaluate_model
from boundcheck.reproduce.dvae.images import Images
from boundcheck.reproduce.dvae.networks import DenoisingVAE
from boundcheck.reproduce.dvae.training import Recipe, one_thread, train


@dataclass(frozen=True)
class Variant:
    """How one of the models is trained: its objective, and the corruption that both readings use."""

    title: str
    objective: str
    corruption: str


VARIANTS = {
    "vae": Variant("VAE", "elbo", "salt-and-pepper"),
    "iwae": Variant("IWAE", "iwae", "salt-and-pepper"),
    "dvae": Variant("DVAE, salt and pepper", "denoising_coupled", "salt-and-pepper"),
    "dvae-gaussian": Variant("DVAE, Gaussian noise", "denoising_coupled", "gaussian"),
    "diwae": Variant("DIWAE, salt and pepper", "diwae", "salt-and-pepper"),
    "decoupled": Variant("trained on the decoupled reading", "denoising_decoupled", "salt-and-pepper"),
}

FOLLOWED = ("dvae", "decoupled")
"""The models whose training is followed: each objective as it was meant, and as it can be read."""

MIXED = 50
"""Corruptions in the two estimates between which the ELBO of q~ lies."""
_PASSES = 10
WATCHED_K = 100
_WATCHED = 50


@dataclass(frozen=True)
class Row:
    """One model's figures, in nats, means over the test images.

    Attributes:
        name: which of `VARIANTS`.
        card: its evidence card; the judged objective is the decoupled reading.
        marginal_elbo: two estimates that the ELBO of q~ lies between on average: SIVI_K and SIVI_K without x~_0
            (Yin & Zhou 2018), since the mean of K densities in a logarithm is low, and one that holds the draw's own
            density is high.
    """

    name: str
    card: EvidenceCard
    marginal_elbo: tuple[DatasetMean, DatasetMean]

    @property
    def title(self) -> str:
        """What the model is."""
        return VARIANTS[self.name].title

    @property
    def cells(self) -> dict[str, float]:
        """The row of the table."""
        low, high = self.marginal_elbo
        return {
            "ELBO": self.card.estimates["elbo"].mean,
            "ELBO of q~, at least": low.mean,
            "ELBO of q~, at most": high.mean,
            "coupled": self.card.estimates["denoising_coupled"].mean,
            "decoupled": self.card.estimates["denoising_decoupled"].mean,
            f"IWAE-{self.card.curve.best.k}": self.card.curve.best.mean.mean,
        }

    @property
    def verdicts(self) -> dict[str, str]:
        """Whether each reading is below the evidence of this model."""
        names = ("denoising_coupled", "denoising_decoupled")
        return {name: self.card.judgements[name].outcome.value for name in names}


@dataclass(frozen=True)
class Moment:
    """A model during training: the decoupled reading and IWAE_100 at fifty test images, in nats."""

    updates: int
    decoupled: float
    iwae: float


@dataclass(frozen=True)
class Experiment:
    """The table, and how the model that is trained on the decoupled reading got there."""

    images: str
    settings: dict[str, Any]
    rows: tuple[Row, ...]
    history: dict[str, tuple[Moment, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "images": self.images,
            "settings": self.settings,
            "rows": [
                {"name": row.name, "model": row.title, "nats": row.cells, "below the evidence": row.verdicts}
                | {"card": row.card.to_json()}
                for row in self.rows
            ],
            "history": {
                name: [{"updates": m.updates, "decoupled": m.decoupled, f"IWAE-{WATCHED_K}": m.iwae} for m in moments]
                for name, moments in self.history.items()
            },
        }


def reproduce(
    images: Images,
    *,
    names: Sequence[str] = tuple(VARIANTS),
    recipe: Recipe | None = None,
    hidden: Sequence[int] = (64,),
    latent: int = 10,
    level: float = 0.1,
    k: int = 5000,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
    keep: Callable[[str, torch.nn.Module], object] = lambda name, model: None,
) -> Experiment:
    """Train the models and evaluate each at the test images.

    Args:
        images: from `digits` or `read_images`.
        names: which of `VARIANTS`.
        recipe: shared by all models; by default 200 epochs.
        hidden: widths of the hidden layers.
        latent: dimensions of z.
        level: of both corruptions.
        k: weights of the IWAE estimate.
        seed: of everything.
        progress: called with (what, done, of).
        keep: called with each model's name and the trained model, to save its weights.

    Raises:
        UnknownName: a name that is not in `VARIANTS`.
        BadInput: no names.
    """
    for name in names:
        if name not in VARIANTS:
            raise UnknownName("model", name, list(VARIANTS))
    if not names:
        raise BadInput("models", names, f"some of {', '.join(VARIANTS)}")
    recipe = recipe or Recipe(epochs=200)
    x = torch.as_tensor(images.test, dtype=torch.float32)
    make = {
        name: partial(DenoisingVAE, images.pixels, hidden, latent, VARIANTS[name].corruption, level) for name in names
    }
    rows: list[Row] = []
    history: dict[str, tuple[Moment, ...]] = {}
    for name in names:
        moments: list[Moment] = []
        with one_thread():
            model = train(
                make[name],
                images,
                VARIANTS[name].objective,
                recipe,
                seed=seed,
                after_epoch=lambda epochs, name=name: progress(f"train {name}", epochs, recipe.epochs),
                watch=partial(_follow, moments, x, seed) if name in FOLLOWED else lambda updates, model: None,
            )
            keep(name, model)
            rows.append(_row(name, model, x, images.name, k, seed, partial(progress, f"evaluate {name}")))
        if moments:
            history[name] = tuple(moments)
    settings = {
        "training images": len(images.train),
        "test images": len(images.test),
        "epochs": recipe.epochs,
        "batch": recipe.batch,
        "learning rate": recipe.learning_rate,
        "hidden": list(hidden),
        "latent": latent,
        "level": level,
        "k": k,
        "seed": seed,
    }
    return Experiment(images.name, settings, tuple(rows), history)


def model_file(sizes: tuple[int, Sequence[int], int], level: float) -> str:
    """The text of a model file for `boundcheck evaluate`, with a function for each of `VARIANTS`.

    Args:
        sizes: pixels, hidden widths, dimensions of z.
        level: of the corruption.

    >>> print(model_file((64, (32,), 10), 0.1).splitlines()[-1])
        return DenoisingVAE(64, (32,), 10, 'salt-and-pepper', 0.1)
    """
    head = '"""The models of the denoising experiment, without their weights."""\n\n'
    head += "from boundcheck.reproduce.dvae import DenoisingVAE\n"
    pixels, hidden, latent = sizes
    functions = (
        f"\n\ndef {name.replace('-', '_')}():\n"
        f"    return DenoisingVAE({pixels}, {tuple(hidden)}, {latent}, {variant.corruption!r}, {level})\n"
        for name, variant in VARIANTS.items()
    )
    return head + "".join(functions)


def _follow(moments: list[Moment], x: torch.Tensor, seed: int, updates: int, model: torch.nn.Module) -> None:
    decoupled = evaluate_mean(objectives.denoising_decoupled, model, x[:_WATCHED], n=50, seed=seed)
    bound = evaluate_mean(objectives.iwae, model, x[:_WATCHED], n=2, seed=seed, k=WATCHED_K)
    moments.append(Moment(updates, decoupled.mean, bound.mean))


def _row(
    name: str, model: Any, x: torch.Tensor, data: str, k: int, seed: int, progress: Callable[[int, int], None]
) -> Row:
    card = evaluate_model(
        model,
        x,
        objective="denoising_decoupled",
        k=k,
        seed=seed,
        model_name=VARIANTS[name].title,
        data_name=data,
        progress=progress,
    )
    low, high = (
        evaluate_mean(formula, model, x, n=_PASSES, seed=seed, k=MIXED)
        for formula in (objectives.sivi, objectives.sivi_without)
    )
    return Row(name, card, (low, high))
