"""The agreement matrix as a table: problems down, evaluators across."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from boundcheck.agreement.problem import Problem
from boundcheck.agreement.problems import PROBLEMS
from boundcheck.agreement.rules import Evaluate, Judgement, Status, as_ball, judge


@dataclass(frozen=True)
class Row:
    """A problem, and what came of it with each evaluator."""

    problem: Problem
    judgements: Mapping[str, Judgement]


def matrix(evaluators: Mapping[str, Evaluate], problems: Iterable[Problem] = PROBLEMS) -> list[Row]:
    """Every evaluator on every problem.

    Args:
        evaluators: the evaluators by name.
        problems: those to run.

    >>> from boundcheck.evaluators import exact
    >>> rows = matrix({"exact": lambda formula, model, x: exact.evaluate(formula, model, x)}, PROBLEMS[:2])
    >>> print(markdown(rows))
    | problem | truth (nats) | exact |
    |---|---|---|
    | Bernoulli, denoising decoupled | 0.510826 | exact |
    | Bernoulli, denoising coupled | -0.368064 | exact |
    """
    return [
        Row(problem, {name: judge(evaluate, problem) for name, evaluate in evaluators.items()}) for problem in problems
    ]


def markdown(rows: Sequence[Row]) -> str:
    """The matrix as a Markdown table; evaluators that can do none of its problems are left out."""
    names = [
        name
        for name in (rows[0].judgements if rows else ())
        if any(row.judgements[name].status is not Status.UNABLE for row in rows)
    ]
    lines = [f"| {' | '.join(['problem', 'truth (nats)', *names])} |", "|---" * (2 + len(names)) + "|"]
    for row in rows:
        cells = [row.problem.name, f"{float(as_ball(row.problem.truth()).mid()):.6g}"]
        cells += [row.judgements[name].status.value for name in names]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def page(rows: Sequence[Row]) -> str:
    """The page of the documentation: a table for each kind of model."""
    parts = [_OPENING]
    for kind, title in _KINDS.items():
        chosen = [row for row in rows if kind in row.problem.tags]
        parts.append(f"## {title}\n\n{markdown(chosen)}\n")
    return "\n".join(parts)


_KINDS = {
    "finite": "Tables",
    "linear-Gaussian": "Linear-Gaussian models",
    "continuous": "Continuous latent variables",
    "factored": "Many latent variables",
}

_OPENING = """\
# Agreement matrix

Every evaluator runs on every problem of a table whose answers were worked out by hand. The derivations stand in
`boundcheck/agreement/finite_problems.py` and `continuous_problems.py`. Written by `python -m boundcheck.agreement`; a
test keeps it true.

- **exact**: equal to the truth. **in enclosure**: the interval contains it. **within error**: the float is within its
  stated error of it.
- **within 6 s.e.**: an unbiased estimate within six standard errors of it. **on its side**: a biased estimate that is
  beyond it by at most six standard errors on the side on which its bias is no excuse.
- **says nothing**: a value that excludes nothing, such as a finite mean of replicates whose expectation is infinite.
- **n.a.**: the evaluator says that it cannot compute the problem. Evaluators that can do nothing in a table are not in
  it.

To hold your own evaluator against the same problems and laws:

```python
from boundcheck.testing import check_evaluator

def test_my_evaluator():
    assert check_evaluator(my_evaluate) == []
```

`my_evaluate(formula, model, x)` returns an `Exact`, `Enclosure`, `Approximate` or `Sampled`, and raises
`CannotCompute` for a model or a formula that it does not take.
"""

__all__ = ["Row", "markdown", "matrix", "page"]
