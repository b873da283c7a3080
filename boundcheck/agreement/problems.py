"""The table of problems whose answers are known without an evaluator.

No truth is computed by enumeration, by quadrature or by sampling, so it shares no code path with what it judges.
"""

from __future__ import annotations

from boundcheck.agreement.continuous_problems import CONTINUOUS_PROBLEMS
from boundcheck.agreement.finite_problems import FINITE_PROBLEMS
from boundcheck.agreement.problem import Problem

PROBLEMS: tuple[Problem, ...] = (*FINITE_PROBLEMS, *CONTINUOUS_PROBLEMS)
"""The table of problems with known truth."""

__all__ = ["PROBLEMS"]
