"""The evaluation card of what a user names on the command line: model, weights, data and objective, from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from boundcheck.errors import BadInput, require
from boundcheck.evidence.card import EvidenceCard
from boundcheck.evidence.evaluation import SIMULATED, evaluate_model
from boundcheck.evidence.loading import load_data, load_factory, load_weights, make_model, module_of
from boundcheck.evidence.numbering import numbered
from boundcheck.evidence.objective import TrainingObjective, declared, why_no_formula
from boundcheck.evidence.shards import local_device
from boundcheck.evidence.subject import CURVE, find_objective, split_name
from boundcheck.evidence.verdict import ALPHA
from boundcheck.language.build import Formula
from boundcheck.models.torch_model import TorchModel

if TYPE_CHECKING:
    import torch
else:
    torch = require("torch", extra="torch", feature="evaluating a trained model")


def evaluate_files(
    spec: str,
    *,
    data: str | Path,
    weights: str | Path | None = None,
    objective: str = "elbo",
    sign: str | None = None,
    unit: str | None = None,
    per: str | None = None,
    batch: int | None = None,
    same: str | None = None,
    k: int = 5000,
    simulated: int = SIMULATED,
    ais: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    limit: int | None = None,
    key: str | None = None,
    replicates: int | None = None,
    chunk: int | None = None,
    threads: int | None = None,
    dtype: str | None = None,
    resume: str | Path | None = None,
    alpha: float = ALPHA,
    note: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> EvidenceCard:
    """The evaluation card of a model in a file: what `boundcheck evaluate FILE.py:NAME --weights W --data D` shows.

    Args:
        spec: "FILE.py:NAME", a function without arguments that makes the model (usually an nn.Module with methods
            prior, encoder, decoder), or the model itself. A module is put into evaluation mode, and one of pythae
            adapted as by `boundcheck.adapters.pythae.from_pythae`.
        data: an .npz or .npy file; "digits.npz:test" names an array. Integers become the module's floating type.
        weights: a .safetensors, .pt, .pth or .ckpt file of the module's state dict.
        objective: the name of an objective, "renyi:alpha=0.5" with its parameters, or "FILE.py:NAME" of a formula or of
            a training loss.
        sign: of a training loss: "bound" if it is maximised, "loss" if it is minimised. What the file declares by
            `training_objective` need not be said again.
        unit: of a training loss: "nats", "bits", "nats/dim" or "bits/dim".
        per: "example" or "batch": what a training loss returns.
        batch: rows in a call of a training loss.
        same: the name of what the objective is said to be, as in `objective`.
        k: the largest number of weights.
        simulated: examples to draw from the model; 0 for none.
        ais: temperatures of annealed importance sampling.
        seed: of all draws, and of the choice that `limit` makes.
        device: "cpu", "cuda", "cuda:1".
        limit: evaluate only so many examples, chosen at random without replacement.
        key: the array of the data file, if its path does not name it.
        replicates: independent replicates of the objectives for each example.
        chunk: the most points handed to the model at once.
        threads: as for `boundcheck.evidence.engine.run`, like dtype.
        dtype: "bfloat16".
        resume: a directory that keeps finished work of every stage; the same call goes on after an interruption.
        alpha: the probability that anything on the card is decided wrongly.
        note: for the reader, such as how the data were binarised.
        progress: called with (done, of) in draws.

    Raises:
        BoundcheckError: one line for whatever is wrong with files, shapes, numbers or names.
    """
    where = _device(local_device(device))
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise BadInput("limit", limit, "an integer of at least 1")
    judged = _objective(objective, sign=sign, unit=unit, per=per, batch=batch)
    same_name, same_parameters = (None, None) if same is None else split_name(same)
    if same_name is not None and same_name not in CURVE:
        find_objective(same_name)
    array = load_data(data, key)
    made = _adapted(make_model(load_factory(spec), spec))
    if weights is not None:
        load_weights(made, weights)
    module = module_of(made)
    if module is not None:
        module.eval().to(where)
    model = TorchModel.wrap(made)
    indices = None
    if limit is not None and limit < len(array):
        indices = np.sort(np.random.default_rng(seed).choice(len(array), limit, replace=False))
        array = array[indices]
    x = torch.as_tensor(array).to(model.dtype or torch.get_default_dtype()).to(where)
    with numbered(indices):
        return evaluate_model(
            made,
            x,
            objective=judged,
            same=same_name,
            same_parameters=same_parameters,
            k=k,
            replicates=replicates,
            simulated=simulated,
            ais=ais,
            seed=seed,
            chunk=chunk,
            threads=threads,
            dtype=dtype,
            resume=resume,
            alpha=alpha,
            model_name=spec,
            data_name=str(data),
            note=note,
            indices=indices,
            progress=progress,
        )


def _adapted(made: Any) -> Any:
    """A model of pythae as one of boundcheck's; anything else as it is."""
    library = any(kind.__module__.startswith("pythae.models") for kind in type(made).__mro__)
    if not library or hasattr(made, "prior"):
        return made
    from boundcheck.adapters.pythae import from_pythae

    return from_pythae(made)


def _objective(text: str, **declaration: Any) -> str | Formula | TrainingObjective:
    """What --objective names, with what the command line declares of a training loss."""
    said = {name: value for name, value in declaration.items() if value is not None}
    if text.endswith(".py"):
        raise BadInput("objective", text, "FILE.py:NAME", "name the formula or the training loss in the file")
    if ".py:" not in text:
        if said:
            name, value = next(iter(said.items()))
            raise BadInput(f"--{name}", value, "an objective FILE.py:NAME that is a training loss")
        name, _ = split_name(text)
        if name not in CURVE:
            find_objective(name)
        return text
    found = load_factory(text, "the objective")
    if not callable(found):
        raise BadInput("objective", text, "a formula: a function of (m, x) that returns a term, or a training loss")
    reason = why_no_formula(found)
    if reason is None and not said:
        return cast("Formula", found)
    return declared(found, why_no_formula=reason or "", **declaration)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has no numbers
    except Exception as error:
        raise BadInput("device", name, "a device of this machine", "cpu always works") from error
    return device


__all__ = ["evaluate_files"]
