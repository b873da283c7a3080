"""Imports run one way, and the light entry points stay light.

The first half reads the source, so an import inside a function or under TYPE_CHECKING counts as much as one
at the top. The second half asks a fresh interpreter what it really loaded.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "boundcheck"

# From the bottom up: a module may import its own layer and those before it.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"language"}),
    frozenset({"models"}),
    frozenset({"evaluators", "adapters"}),
    frozenset({"claims"}),
    frozenset({"catalogue"}),
    frozenset({"search", "evidence"}),
    frozenset({"strategies", "testing", "agreement", "reproduce"}),
    frozenset({"cli", "pytest_plugin", "demo", "__main__", PACKAGE}),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# The package's front door re-exports names from every layer. It is imported before any of them, so an import
# at its top would make each layer load all the others. There, only the bottom layer may be imported eagerly;
# the rest belongs inside a function (its __getattr__) or under TYPE_CHECKING.
LAZY_FRONT_DOOR = "__init__.py"

# Calls that import a module by its name, written as a string.
IMPORTING_CALLS = {"import_module", "__import__", "require"}

HEAVY = {"torch", "matplotlib", "hypothesis", "pytest", "sympy", "scipy", "flint"}


class Arrow(NamedTuple):
    """One import of a boundcheck module by another: where it stands and the two ends, as top-level names."""

    file: str
    line: int
    source: str
    target: str
    eager: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.source} imports {self.target}"


def top_level_name(module: str, package: Path) -> str | None:
    """`boundcheck.claims.decide` -> `claims`; `boundcheck` and names it defines itself -> `boundcheck`."""
    first, *rest = module.split(".")
    if first != PACKAGE:
        return None
    if rest and ((package / rest[0]).is_dir() or (package / f"{rest[0]}.py").is_file()):
        return rest[0]
    return PACKAGE


def imported_modules(node: ast.AST, parents: list[str]) -> list[str]:
    """The dotted modules that one node imports; `parents` are the file's packages, outermost first."""
    match node:
        case ast.Import(names=names):
            return [name.name for name in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            base = parents[: len(parents) - level + 1] if level else []
            dotted = ".".join([*base, *([module] if module else [])])
            return [f"{dotted}.{name.name}" for name in names]
        case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=[ast.Constant(str(name)), *_]):
            return [name] if called in IMPORTING_CALLS else []
    return []


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def nodes_with_eagerness(node: ast.AST, eager: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below, and whether importing the module runs it."""
    for child in ast.iter_child_nodes(node):
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(node, ast.If) and is_type_checking(node.test) and child in node.body
        )
        yield child, eager and not lazy
        yield from nodes_with_eagerness(child, eager and not lazy)


def arrows(package: Path) -> Iterator[Arrow]:
    for file in sorted(package.rglob("*.py")):
        path = file.relative_to(package)
        parents = [PACKAGE, *path.parts[:-1]]
        source = PACKAGE if path == Path(LAZY_FRONT_DOOR) else path.parts[0].removesuffix(".py")
        for node, eager in nodes_with_eagerness(ast.parse(file.read_text(encoding="utf-8"), str(path))):
            for module in imported_modules(node, parents):
                target = top_level_name(module, package)
                if target is not None:
                    yield Arrow(str(path), getattr(node, "lineno", 0), source, target, eager)


def runs_back(arrow: Arrow) -> bool:
    if arrow.file == LAZY_FRONT_DOOR:
        return arrow.eager and RANK[arrow.target] > 0 and arrow.target != PACKAGE
    return RANK[arrow.source] < RANK[arrow.target]


def unplaced(package: Path) -> set[str]:
    """Top-level modules that no layer names."""
    modules = {path.stem for path in package.glob("*.py")}
    packages = {path.parent.name for path in package.glob("*/*.py")}
    return (modules | packages) - RANK.keys() - {"__init__"}


def test_every_module_has_a_layer() -> None:
    assert not unplaced(ROOT / PACKAGE), "name a layer for it in LAYERS"


def test_imports_run_one_way() -> None:
    found = list(arrows(ROOT / PACKAGE))
    assert any(arrow.target == "errors" for arrow in found), "the walk saw no import at all"
    back = [str(arrow) for arrow in found if runs_back(arrow)]
    assert not back, "these imports run against the layers:\n" + "\n".join(back)


def plant(root: Path, file: str, source: str) -> Path:
    """A small package of the real shape, with one file of the given source."""
    package = root / PACKAGE
    for layer in ("language", "claims", "search"):
        (package / layer).mkdir(parents=True)
        (package / layer / "__init__.py").touch()
    (package / "errors.py").touch()
    (package / "cli.py").touch()
    (package / "__init__.py").touch()
    (package / file).write_text(source, encoding="utf-8")
    return package


REVERSED = {
    "absolute": ("language/bad.py", "from boundcheck.claims.decide import decide"),
    "plain": ("language/bad.py", "import boundcheck.claims.decide as d"),
    "by parent": ("language/bad.py", "from boundcheck import claims"),
    "relative": ("language/bad.py", "from ..claims import decide"),
    "relative parent": ("language/bad.py", "from .. import claims"),
    "relative in __init__": ("language/__init__.py", "from ..claims import decide"),
    "inside a function": ("language/bad.py", "def f():\n    from boundcheck.search import falsify\n"),
    "for types only": (
        "language/bad.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from boundcheck.claims import Claim\n",
    ),
    "by name": ("errors.py", "import importlib\nimportlib.import_module('boundcheck.claims')"),
    "through require": ("claims/bad.py", "require('boundcheck.cli', extra='x', feature='y')"),
    "through the front door": ("claims/bad.py", "from boundcheck import falsify"),
    "a whole package": ("errors.py", "import boundcheck"),
    "an eager front door": ("__init__.py", "from boundcheck.claims import Claim"),
    "an eager front door, else branch": (
        "__init__.py",
        "if TYPE_CHECKING:\n    pass\nelse:\n    from boundcheck.claims import Claim\n",
    ),
}

ONE_WAY = {
    "downwards": ("claims/good.py", "from boundcheck.language import E\nfrom ..errors import BadInput"),
    "the same layer": ("claims/good.py", "from .gap import Gap\nfrom boundcheck.claims import gap"),
    "another project": ("errors.py", "import boundcheckers.claims\nfrom claims import x"),
    "from the top": ("cli.py", "from boundcheck import __version__\nfrom boundcheck.search import falsify"),
    "a lazy front door": (
        "__init__.py",
        "from boundcheck.errors import BadInput\nif TYPE_CHECKING:\n    from boundcheck.claims import Claim\n"
        "def __getattr__(name):\n    from boundcheck.claims import Claim\n    return Claim\n",
    ),
}


@pytest.mark.parametrize(("file", "source"), REVERSED.values(), ids=REVERSED.keys())
def test_a_planted_reversed_import_is_caught(tmp_path: Path, file: str, source: str) -> None:
    package = plant(tmp_path, file, source)
    assert [arrow.file for arrow in arrows(package) if runs_back(arrow)] == [file]


@pytest.mark.parametrize(("file", "source"), ONE_WAY.values(), ids=ONE_WAY.keys())
def test_a_planted_good_import_is_not(tmp_path: Path, file: str, source: str) -> None:
    package = plant(tmp_path, file, source)
    assert not [arrow for arrow in arrows(package) if runs_back(arrow)]


def test_a_planted_module_without_a_layer_is_caught(tmp_path: Path) -> None:
    assert unplaced(plant(tmp_path, "helpers.py", "")) == {"helpers"}


def packages_loaded_by(*arguments: str) -> set[str]:
    """The top-level packages that a fresh interpreter imports while it runs the given arguments."""
    command = [sys.executable, "-X", "importtime", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    lines = run.stderr.splitlines()
    assert run.returncode == 0, [line for line in lines if not line.startswith("import time:")]
    imports = (line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:"))
    return {module.partition(".")[0] for module in imports}


def test_the_listing_of_loaded_packages_sees_an_import() -> None:
    assert "sortedcontainers" in packages_loaded_by("-c", "import sortedcontainers")
    assert "sortedcontainers" not in packages_loaded_by("-c", "pass")


def test_import_boundcheck_is_light() -> None:
    loaded = packages_loaded_by("-c", "import boundcheck; boundcheck.__file__.lower()")
    assert PACKAGE in loaded
    assert not loaded & HEAVY


def test_help_answers_without_torch() -> None:
    loaded = packages_loaded_by("-m", PACKAGE, "--help")
    assert "click" in loaded
    assert "torch" not in loaded
