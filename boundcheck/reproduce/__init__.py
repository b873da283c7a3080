"""Published counterexamples and experiments, computed again from their formulas."""
