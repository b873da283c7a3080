"""Save a counterexample to every claim of the catalogue that random models refute.

    python counterexamples/witnesses.py

writes counterexamples/witnesses/NAME.json, exact and the same on every run, for `boundcheck replay FILE`.
"""

from __future__ import annotations

from pathlib import Path

from boundcheck import Witness, survey
from boundcheck.catalogue import claims

FOLDER = Path(__file__).parent / "witnesses"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, claim in claims().items():
        found = survey(claim).witness
        if found is not None:
            Witness.of(found).save(FOLDER / f"{name}.json")
            print(f"{name}: {found.verdict}, margin {found.verdict.margin:.6g} nats")


if __name__ == "__main__":
    main()
