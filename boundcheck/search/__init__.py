"""Counterexamples: how they are kept, and decided again."""

from boundcheck.search.witness import Witness, load_witness

__all__ = ["Witness", "load_witness"]
