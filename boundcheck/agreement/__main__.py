"""Write the page of the documentation: `python -m boundcheck.agreement > docs/agreement.md`."""

from __future__ import annotations

from boundcheck.agreement.evaluators import evaluators
from boundcheck.agreement.table import matrix, page

if __name__ == "__main__":
    print(page(matrix(evaluators())), end="")
