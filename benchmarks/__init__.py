"""Benchmarks: what boundcheck costs beside the best alternative, measured on the reader's own machine."""
