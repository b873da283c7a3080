"""The stages of a card shared by several processes, and their mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from card_scripts import CARD, TESTS, in_two_processes, same

from boundcheck.errors import BadInput, BoundcheckError, CannotCompute, UndefinedValue
from boundcheck.evaluators import units
from boundcheck.evidence import chain_block, stages
from boundcheck.evidence.journal import JournalError
from boundcheck.evidence.shards import OtherProcessFailed, Shard, exchange

SHARED = (
    CARD
    + """
from boundcheck.errors import BadInput
from boundcheck.evidence.shards import rank

stages._SECONDS = 1.0
folder = sys.argv[1]
objective = prepared(count(f"{{folder}}/{{rank()}}.calls"), lambda: None)
card = evaluate_model(MODEL, X, objective=objective, resume=f"{{folder}}/kept", **OPTIONS)

def broken(model, x):
    if bool((x > 0.9).any()):
        raise ValueError("too large")
    return torch.randn(len(x))

message = ""
try:
    evaluate_model(MODEL, X, objective=TrainingObjective(broken, sign="loss", batch=7), k=5, replicates=2)
except BadInput as error:
    message = str(error)
box = TorchModel(
    prior=lambda: torch.distributions.Uniform(0.0, 1.0),
    encoder=lambda x: torch.distributions.Uniform(0 * x, 1.0),
    decoder=lambda z: torch.distributions.Normal(z, 1.0),
)
boxed = evaluate_model(box, X[:, 0], k=5, ais=3, simulated=0)
result = {{"card": card.to_json(), "message": message, "notes": boxed.notes}}
json.dump(result, open(f"{{folder}}/{{rank()}}.json", "w"))
"""
)


def test_processes_share_every_stage_and_each_has_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_two_processes(SHARED, tmp_path)
    for module, name in (
        (stages, "_SECONDS"),
        (stages, "_SHARE"),
        (chain_block, "WARM_UP"),
        (units, "_NUMBERS_AT_ONCE"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))  # the script sets them, and they are put back
    threads, names = torch.get_num_threads(), dict[str, Any]()
    exec(CARD.format(tests=str(TESTS)), names)
    objective = names["prepared"](names["count"](tmp_path / "alone"), lambda: None)
    alone = names["evaluate_model"](names["MODEL"], names["X"], objective=objective, **names["OPTIONS"]).to_json()
    torch.set_num_threads(threads)
    calls = [(tmp_path / f"{rank}.calls").stat().st_size for rank in (0, 1)]
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        same(found["card"], json.loads(json.dumps(alone)))
        assert "too large" in found["message"]  # only one of them met it
        assert any("no AIS: its support" in note for note in found["notes"])
        assert calls[rank] < 0.7 * (tmp_path / "alone").stat().st_size


# --- errors on their way between processes ---


class Told(Shard):
    """Two processes, of which the other one has met a mistake."""

    def gather(self, content: bytes) -> list[bytes]:
        other: list[bytes] = []

        class Other(Shard):
            def gather(self, content: bytes) -> list[bytes]:
                other.append(content)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            exchange(Other(0, 2), {}, MISTAKE[0])
        return [other[0], content]


MISTAKE: list[Exception] = []


@pytest.mark.parametrize(
    ("mistake", "kind"),
    [
        (BadInput("k", 0, "more", "pass more"), BadInput),
        (JournalError("resume", "d", "room"), JournalError),
        (CannotCompute("annealing", "prior()", "it is discrete"), CannotCompute),
        (UndefinedValue("a", "x[3]"), UndefinedValue),
        (NotImplementedError("no"), RuntimeError),
        (ZeroDivisionError("x"), OtherProcessFailed),
    ],
)
def test_all_processes_meet_the_mistake_of_one(mistake: Exception, kind: type, monkeypatch: Any) -> None:
    MISTAKE[:] = [mistake]
    with pytest.raises(kind) as caught:
        exchange(Told(1, 2), {0: {"a": np.zeros(1)}})
    assert str(mistake) in str(caught.value)
    if isinstance(mistake, BoundcheckError):
        assert type(caught.value) is type(mistake)
        assert str(caught.value) == str(mistake)
    if isinstance(mistake, CannotCompute):
        assert caught.value.reason == mistake.reason  # type: ignore[attr-defined]
