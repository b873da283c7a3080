"""A card with every stage, for scripts that are killed and for those that share it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent
CARD = """
import json, os, signal, sys
sys.path.insert(0, {tests!r})
import numpy as np, torch
from torch_models import LinearGaussian
from boundcheck.evaluators import units
from boundcheck.evidence import TrainingObjective, chain_block, evaluate_model, stages
from boundcheck.models.torch_model import TorchModel

torch.set_num_threads(1)
stages._SECONDS, stages._SHARE = 0.0, 1e9  # every step is kept
chain_block.WARM_UP = 2
units._NUMBERS_AT_ONCE = 1 << 7  # formulas have several blocks of replicates
X = torch.linspace(-1, 1, 44).reshape(22, 2).double()
MODEL = LinearGaussian(1, 2, seed=5).torch()
PLAIN = MODEL._functions["likelihood"]

def count(name):
    log = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    def counted():
        os.write(log, b"x")
    return counted

def prepared(calls, decoded):
    def loss(model, x):
        calls()
        law = model.law("encoder", x)
        z = law.rsample()
        noise = torch.from_numpy(np.random.normal(size=len(x)))
        return law.log_prob(z) - model.law("prior").log_prob(z) - PLAIN(z).log_prob(x) + noise

    def decoder(z):
        decoded()
        return PLAIN(z)

    MODEL._functions["likelihood"] = decoder
    return TrainingObjective(loss, sign="loss", batch=7)

OPTIONS = dict(
    same="iwae", same_parameters={{"k": 3}}, k=1100, replicates=12, simulated=17, ais=3, seed=6, alpha=0.01, threads=1
)
"""


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)
