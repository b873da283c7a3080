"""The agreement matrix: problems with known truth, and the rules by which an evaluator agrees with them.

`check_evaluator` runs them on anyone's evaluator; `matrix` shows what came of each.
"""

from __future__ import annotations

from boundcheck.agreement.problem import Problem
from boundcheck.agreement.problems import PROBLEMS
from boundcheck.agreement.rules import Disagreement, Evaluate, Judgement, Status, check_evaluator, judge, laws
from boundcheck.agreement.table import Row, markdown, matrix

__all__ = [
    "PROBLEMS",
    "Disagreement",
    "Evaluate",
    "Judgement",
    "Problem",
    "Row",
    "Status",
    "check_evaluator",
    "judge",
    "laws",
    "markdown",
    "matrix",
]
