"""Claims: two objectives, a relation, and the machinery that decides them."""

from boundcheck.claims.check import ModelCheck, check, check_model, value_of
from boundcheck.claims.claim import Claim
from boundcheck.claims.decide import Guarantee, Outcome, Verdict, decide
from boundcheck.claims.family import finite_models
from boundcheck.claims.survey import Status, Survey, survey

__all__ = [
    "Claim",
    "Guarantee",
    "ModelCheck",
    "Outcome",
    "Status",
    "Survey",
    "Verdict",
    "check",
    "check_model",
    "decide",
    "finite_models",
    "survey",
    "value_of",
]
