"""boundcheck."""
