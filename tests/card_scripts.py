"""A card with every stage, for scripts that are killed and for those that share it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


def in_two_processes(script: str, folder: Path) -> None:
    """Run a script, which has a place for the tests' directory, under torchrun, with a folder as its argument."""
    file = folder / "shared.py"
    file.write_text(script.format(tests=str(TESTS)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(file), str(folder)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
