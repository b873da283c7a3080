"""`python -m benchmarks NAME [options]` runs one benchmark; without a name, lists them."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path


def available() -> dict[str, str]:
    """The benchmarks by name, each with the first line of its own description."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        if not file.stem.startswith("_"):
            description = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            found[file.stem] = description.partition("\n")[0]
    return found


def main(arguments: list[str]) -> int:
    names = available()
    if arguments and arguments[0] in names:
        return importlib.import_module(f"benchmarks.{arguments[0]}").main(arguments[1:]) or 0
    listing = "\n".join(f"  {name:<12} {description}" for name, description in names.items())
    print(f"usage: python -m benchmarks NAME [options]\n\nBenchmarks (each has its own --help):\n{listing}")
    if not arguments or arguments[0] in ("-h", "--help"):
        return 0
    print(f"\nno benchmark is called {arguments[0]!r}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
