"""`python -m boundcheck`: the command line."""

from __future__ import annotations

from boundcheck.cli import main

if __name__ == "__main__":
    main()
