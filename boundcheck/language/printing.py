"""Terms as text and as LaTeX, in the notation of the papers: `E_{z ~ q(.|x)}[log p(x,z) - log q(z|x)]`.

One printer walks the term; a style says how each construct is spelt. An exponential of log-densities is printed as
the ratio of densities that it is, and copies of a replicated variable carry an index.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import count

from boundcheck.language.laws import DensityLaw, Law, MixtureLaw, ModelLaw
from boundcheck.language.terms import (
    OBSERVED,
    Apply,
    Const,
    Expect,
    Integrate,
    LogDensity,
    Plate,
    Reduce,
    Space,
    Term,
    Var,
    multiply,
    walk,
)

_LETTER = {"prior": "p", "likelihood": "p", "joint": "p", "encoder": "q", "corruption": "c", "auxiliary": "r"}
_SUM, _PRODUCT, _PREFIX, _POWER, _ATOM = range(5)  # precedence: a log binds its whole product, an atom no brackets


class _Text:
    dot = "."
    space = " "
    minus, plus, times = " - ", " + ", " * "
    infinity = "inf"

    def variable(self, name: str, space: str, primes: int) -> str:
        return name + "'" * primes

    def index(self, name: str, index: str) -> str:
        return f"{name}_{index}"

    def fraction(self, value: Fraction) -> str:
        return str(value) if value.denominator == 1 else f"{'-' if value < 0 else ''}({abs(value)})"

    def ratio(self, top: str, bottom: str, many: bool) -> str:
        return f"{top}/({bottom})" if many else f"{top}/{bottom}"

    def power(self, base: str, exponent: Fraction) -> str:
        plain = exponent.denominator == 1 and exponent >= 0
        return f"{base}^{exponent}" if plain else f"{base}^({exponent})"

    def function(self, name: str, args: Sequence[str]) -> str:
        return f"{name}({', '.join(args)})"

    def expectation(self, var: str, law: str, body: str) -> str:
        return f"E_{{{var} ~ {law}}}[{body}]"

    def summation(self, var: str, discrete: bool) -> str:
        head = "sum" if discrete else "integral"
        return f"{head}_{var} " if " " not in var else f"{head}_{{{var}}} "

    def member(self, var: str, space: Space) -> str:
        where = space.name if space.bounds is None else f"[{space.bounds[0]}, {space.bounds[1]}]"
        return f"{var} in {where}"

    def reduction(self, op: str, index: str) -> str:
        return f"{op}_{index} "

    def copies(self, name: str, k: int) -> str:
        return f"{name}_1..{k}"

    def log(self) -> str:
        return "log "

    def brackets(self, inner: str) -> str:
        return f"[{inner}]"

    def conditional(self, letter: str, point: str, given: str) -> str:
        return f"{letter}({point}|{given})" if given else f"{letter}({point})"

    def marginal_encoder(self) -> str:
        return "q~"

    def proportional(self, var: str, log_density: str, rescale: bool) -> str:
        return f"{'normalised' if rescale else 'density'}({var}: {log_density})"


class _Latex(_Text):
    dot = r"\cdot"
    times = r" \, "
    infinity = r"\infty"

    def variable(self, name: str, space: str, primes: int) -> str:
        word = name if len(name) == 1 else rf"\mathrm{{{name}}}".replace("_", r"\_")
        return (r"\tilde{x}" if space == "x~" else word) + "'" * primes

    def index(self, name: str, index: str) -> str:
        return f"{name}_{{{index}}}"

    def fraction(self, value: Fraction) -> str:
        if value.denominator == 1:
            return str(value)
        sign = "-" if value < 0 else ""
        return rf"{sign}\tfrac{{{abs(value.numerator)}}}{{{value.denominator}}}"

    def ratio(self, top: str, bottom: str, many: bool) -> str:
        return rf"\frac{{{top}}}{{{bottom}}}"

    def power(self, base: str, exponent: Fraction) -> str:
        return f"{base}^{{{exponent}}}"

    def function(self, name: str, args: Sequence[str]) -> str:
        head = rf"\{name}" if name in ("exp", "max", "min") else rf"\mathrm{{{name}}}"
        return rf"{head}\left({', '.join(args)}\right)"

    def expectation(self, var: str, law: str, body: str) -> str:
        return rf"\mathbb{{E}}_{{{var} \sim {law}}}\left[{body}\right]"

    def summation(self, var: str, discrete: bool) -> str:
        return rf"\sum_{{{var}}} " if discrete else rf"\int_{{{var}}} "

    def member(self, var: str, space: Space) -> str:
        letter = {"x": "X", "z": "Z", "x~": r"\tilde{X}"}.get(space.name, rf"\mathrm{{{space.name}}}")
        where = letter if space.bounds is None else rf"[{space.bounds[0]}, {space.bounds[1]}]"
        return rf"{var} \in " + where.replace("_", r"\_")

    def reduction(self, op: str, index: str) -> str:
        names = {"sum": rf"\sum_{{{index}}}", "max": rf"\max_{{{index}}}", "min": rf"\min_{{{index}}}"}
        return names.get(op, rf"\operatorname*{{mean}}_{{{index}}}") + " "

    def copies(self, name: str, k: int) -> str:
        return f"{name}_{{1:{k}}}"

    def log(self) -> str:
        return r"\log "

    def brackets(self, inner: str) -> str:
        return rf"\left[{inner}\right]"

    def conditional(self, letter: str, point: str, given: str) -> str:
        return rf"{letter}({point} \mid {given})" if given else f"{letter}({point})"

    def marginal_encoder(self) -> str:
        return r"\tilde{q}"

    def proportional(self, var: str, log_density: str, rescale: bool) -> str:
        name = "normalised" if rescale else "density"
        return rf"\operatorname{{{name}}}_{{{var}}}\left({log_density}\right)"


class _Printer:
    def __init__(self, style: _Text) -> None:
        self.style = style
        self.names: dict[Var, str] = {OBSERVED: style.variable("x", "x", 0)}
        self.indices: dict[Plate, str] = {}
        self.reduced: frozenset[Plate] = frozenset()

    # --- names ---

    def bind(self, var: Var) -> str:
        """Choose a name that no variable in scope has, and return the binder's spelling of it."""
        fresh = [plate for plate in var.plates if plate not in self.indices]
        for plate in fresh:
            self.indices[plate] = self.index()
        primes = 0
        taken = set(self.names.values())
        while (name := self.style.variable(var.name, var.space.name, primes)) in taken:
            primes += 1
        self.names[var] = name
        if fresh:
            return self.style.copies(name, fresh[-1].size)
        return self.variable(var)

    def member(self, var: Var, body: Term) -> str:
        """A bound variable, with its space where no law in the body tells it, as in sum_{v in z} 1."""
        name = self.bind(var)
        told = var.space.bounds is None and any(_tells(term, var) for term in walk(body))
        return name if told else self.style.member(name, var.space)

    def variable(self, var: Var) -> str:
        name = self.names.get(var) or self.style.variable(var.name, var.space.name, 0)
        index = ",".join(self.indices.get(plate, "k") for plate in var.plates)
        return self.style.index(name, index) if index else name

    def index(self) -> str:
        """A letter that no copies in scope are counted by."""
        taken = set(self.indices.values())
        return next(name for primes in count() for letter in "kljmn" if (name := letter + "'" * primes) not in taken)

    # --- laws ---

    def law(self, law: Law, point: Sequence[str]) -> str:
        """The law at a point; the point `.` names the law itself."""
        where = ",".join(point)
        if isinstance(law, ModelLaw):
            given = ",".join(self.show(arg) for arg in law.args)
            return self.style.conditional(_LETTER[law.role], where, given)
        if isinstance(law, DensityLaw):
            joint = law.log_density
            if law.rescale and isinstance(joint, LogDensity) and joint.law == ModelLaw("joint"):
                x, z = joint.point
                if isinstance(x, Var) and z == law.var:
                    return self.style.conditional("p", where, self.show(x))
            with _Scope(self):
                name = self.member(law.var, law.log_density)
                text = self.style.proportional(name, self.show(law.log_density), law.rescale)
            return text if where == self.style.dot else f"{text}({where})"
        assert isinstance(law, MixtureLaw)
        if isinstance(law.mixing, ModelLaw) and law.mixing.role == "corruption":
            given = ",".join(self.show(arg) for arg in law.mixing.args)
            inner = law.component
            if isinstance(inner, ModelLaw) and inner.role == "encoder" and inner.args == (law.var,):
                return self.style.conditional(self.style.marginal_encoder(), where, given)
        with _Scope(self):
            mixing = self.law(law.mixing, [self.style.dot])
            name = self.bind(law.var)
            return self.style.expectation(name, mixing, self.law(law.component, point))

    # --- terms ---

    def show(self, term: Term, level: int = _SUM) -> str:
        text, precedence = self.spell(term)
        return self.style.brackets(text) if precedence < level else text

    def spell(self, term: Term) -> tuple[str, int]:
        style = self.style
        if isinstance(term, Const):
            return style.fraction(term.value), _ATOM if term.value >= 0 else _SUM
        if isinstance(term, Var):
            return self.variable(term), _ATOM
        if isinstance(term, LogDensity):
            return style.log() + self.law(term.law, [self.show(point) for point in term.point]), _PREFIX
        if isinstance(term, Expect):
            law = self.law(term.law, [style.dot])
            with _Scope(self):
                return style.expectation(self.bind(term.var), law, self.show(term.body)), _ATOM
        if isinstance(term, Integrate):
            with _Scope(self):
                head = style.summation(self.member(term.var, term.body), term.space.bounds is None)
                return head + self.show(term.body, _PRODUCT), _PRODUCT
        if isinstance(term, Reduce):
            with _Scope(self):
                if term.plate in self.reduced:  # as in mean_k [sum_l w_l - w_k]
                    self.indices[term.plate] = self.index()
                self.reduced = self.reduced | {term.plate}
                head = style.reduction(term.op, self.indices.get(term.plate, "k"))
                return head + self.show(term.body, _PRODUCT), _PRODUCT
        assert isinstance(term, Apply)
        return self.apply(term)

    def apply(self, term: Apply) -> tuple[str, int]:
        style, op, args = self.style, term.op, term.args
        if op == "add":
            text = self.show(args[0])
            for arg in args[1:]:
                piece = self.show(arg, _SUM if isinstance(arg, Const) else _PRODUCT)
                text += style.minus + piece[1:] if piece.startswith("-") else style.plus + piece
            return text, _SUM
        if op == "mul":
            if isinstance(args[0], Const) and args[0].value == -1:
                return "-" + self.show(multiply(*args[1:]), _PRODUCT), _PRODUCT
            # A leading constant may be negative without brackets: -2 log p.
            first = style.fraction(args[0].value) if isinstance(args[0], Const) else self.show(args[0], _POWER)
            # Only the last factor may be a log without brackets, since a log binds all that follows it.
            middle = [self.show(arg, _POWER) for arg in args[1:-1]]
            return style.space.join([first, *middle, self.show(args[-1], _PREFIX)]), _PRODUCT
        if op == "pow":
            exponent = args[1]
            assert isinstance(exponent, Const)
            return style.power(self.show(args[0], _ATOM), exponent.value), _POWER
        if op == "log":
            return style.log() + self.show(args[0], _PRODUCT), _PREFIX
        if op == "exp":
            return self.density_ratio(args[0]) or (style.function("exp", [self.show(args[0])]), _ATOM)
        return style.function(op, [self.show(arg) for arg in args]), _ATOM

    def density_ratio(self, exponent: Term) -> tuple[str, int] | None:
        """exp(log a - log b) as a/b, or None if the exponent is not a combination of log-densities."""
        parts = exponent.args if isinstance(exponent, Apply) and exponent.op == "add" else (exponent,)
        top, bottom = [], []
        for part in parts:
            weight, factor = Fraction(1), part
            if isinstance(part, Apply) and part.op == "mul" and len(part.args) == 2 and isinstance(part.args[0], Const):
                weight, factor = part.args[0].value, part.args[1]
            if not isinstance(factor, LogDensity):
                return None
            text = self.law(factor.law, [self.show(point) for point in factor.point])
            if abs(weight) != 1:
                text = self.style.power(text, abs(weight))
            (top if weight > 0 else bottom).append(text)
        if not bottom:
            return " ".join(top), _PRODUCT if len(top) > 1 else _ATOM
        return self.style.ratio(" ".join(top) or "1", " ".join(bottom), len(bottom) > 1), _PRODUCT


def _tells(term: Term, var: Var) -> bool:
    """True if a term shows in which space a variable lives: points do, and so do a decoder's and an auxiliary's z."""
    if not isinstance(term, LogDensity | Expect):
        return False
    law = term.law
    latent = law.children[:1] if isinstance(law, ModelLaw) and law.role in ("likelihood", "auxiliary") else ()
    return var in latent or (isinstance(term, LogDensity) and var in term.point)


class _Scope:
    """Forget, on leaving, the names that were chosen inside."""

    def __init__(self, printer: _Printer) -> None:
        self.printer = printer

    def __enter__(self) -> None:
        self.saved = dict(self.printer.names), dict(self.printer.indices), self.printer.reduced

    def __exit__(self, *_: object) -> None:
        self.printer.names, self.printer.indices, self.printer.reduced = self.saved


def to_text(term: Term) -> str:
    """One line of plain text."""
    return _Printer(_Text()).show(term)


def to_latex(term: Term) -> str:
    """LaTeX, without dollar signs."""
    return _Printer(_Latex()).show(term)


def law_to_text(law: Law) -> str:
    """The law as it is named inside a formula, such as q(.|x)."""
    style = _Text()
    return _Printer(style).law(law, [style.dot] * len(law.point_spaces))
