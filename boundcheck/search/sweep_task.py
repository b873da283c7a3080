"""One task of a sweep, done: a text that says all goes in, a text that says what was found comes out.

The result depends on nothing but the task, so it does not matter which process computes it, when, or how often.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from boundcheck.claims.check import ModelCheck
from boundcheck.claims.claim import Claim
from boundcheck.claims.decide import Guarantee
from boundcheck.claims.family import cases
from boundcheck.claims.survey import Survey, survey
from boundcheck.errors import BadInput, BoundcheckError
from boundcheck.models.finite import FiniteModel
from boundcheck.search.batch import Sizes
from boundcheck.search.falsify import falsify
from boundcheck.search.sweep_plan import Task, claim_from_json, program, version
from boundcheck.search.witness import Witness

_one_at_a_time = threading.Lock()
"""An executor may run tasks in threads of one process; what they compute with was never meant to be shared."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def work(text: str) -> str:
    """Do the task that `Plan.text` wrote; the result is a record, as JSON.

    A task that fails, for example because no evaluator can compute the claim, has a record that says so.

    Raises:
        BadInput: another version of boundcheck wrote the task.

    >>> from boundcheck.catalogue import find
    >>> from boundcheck.search.sweep_plan import plan_of
    >>> plan = plan_of([find("jvi-below-evidence")], seeds=[0], budget=1000)
    >>> record = json.loads(work(plan.text(plan.tasks[1])))
    >>> record["violated"], record["size"][0]
    (True, 3)
    """
    data = json.loads(text)
    if data["program"] != program():
        remedy = "install the same boundcheck and libraries everywhere, and start workers anew after an edit"
        raise BadInput("the worker's boundcheck", version(), "the very program that planned the sweep", remedy)
    fields = data["task"]
    task = Task(**{**fields, "sizes": Sizes(*fields["sizes"]) if fields["sizes"] else None})
    try:
        with _one_at_a_time, one_thread():
            found = _do(task, claim_from_json(data["claim"]))
    except BoundcheckError as error:
        found = {"failed": str(error)}
    except Exception as error:  # a defect must not end the sweep, and must not look like a result
        found = {"failed": f"{type(error).__name__}: {error}"}
    return json.dumps({"key": task.key} | found, allow_nan=False)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread of arithmetic: sums split over several add up in another order, and a search could take another turn.

    It holds for libraries that are imported, and for processes that are started, within; and for torch.
    """
    before = {name: os.environ.get(name) for name in _THREADS}
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch is not None else 1
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    if torch is not None and threads != 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if torch is not None and threads != 1:
            torch.set_num_threads(threads)


def _do(task: Task, claim: Claim) -> dict[str, Any]:
    if task.kind == "judge":
        # Proofs with symbols run against the clock, and a report must not depend on how busy the machine is.
        found = survey(claim, count=task.models, seed=task.seed, symbolic=False)
        judged = {"status": found.status.value, "verdict": found.outcome.value}
        return judged | {"guarantee": found.guarantee.value if found.guarantee else None} | _surveyed(found)
    if task.kind == "survey":
        return _surveyed(survey(claim, cases(claim.family, task.models, task.seed), symbolic=False))
    search = falsify(claim, budget=task.models, seed=task.seed, sizes=task.sizes)
    return {"models": search.models, "open": 0} | _witness(search.witness)


def _surveyed(found: Survey) -> dict[str, Any]:
    tried = found.models + (found.witness is not None)
    return {"models": tried, "open": found.open + found.skipped} | _witness(found.witness)


def _witness(found: ModelCheck | None) -> dict[str, Any]:
    """What a record says of a counterexample; one that is not certified is none."""
    if found is None or found.verdict.guarantee not in (Guarantee.EXACT, Guarantee.CERTIFIED):
        return {"violated": False}
    try:
        data: Mapping[str, Any] = Witness.of(found).to_json()
    except BadInput:  # a model that no file can hold exactly
        data = found.point_json() | {"verdict": found.verdict.to_json()}
    states = sum(found.model.sizes.values()) if isinstance(found.model, FiniteModel) else 0
    return {"violated": True, "witness": data, "size": [states, len(json.dumps(data["model"]))]}


__all__ = ["one_thread", "work"]
