"""Laws: what an expectation is taken over.

A law is either supplied by the model under a role (prior, likelihood, encoder, corruption, auxiliary), or built in
the formula: from a log-density (`normalised`, `density`), or as a mixture. Whatever is built in the formula reduces,
by `expand`, to log-densities of the model's own laws, so an evaluator needs to know only those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, lru_cache

from boundcheck.errors import CannotCompute, FormulaError
from boundcheck.language.binding import canonical, substitute
from boundcheck.language.terms import (
    CORRUPTED,
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
    X,
    Z,
    add,
    multiply,
    walk,
)

ROLES: dict[str, tuple[tuple[Space, ...], tuple[Space, ...]]] = {
    # role: (spaces of its arguments, spaces of the point whose density it gives)
    "prior": ((), (Z,)),
    "likelihood": ((Z,), (X,)),
    "joint": ((), (X, Z)),
    "encoder": ((X,), (Z,)),
    "corruption": ((X,), (CORRUPTED,)),
    "auxiliary": ((Z, X), (CORRUPTED,)),
}
"""What a model can supply. A corrupted input is of the same nature as an observation and may stand in its place."""

_DATA = {X, CORRUPTED}


class Law:
    """A conditional law; `space` is where its draws live."""

    space: Space

    @property
    def children(self) -> tuple[Term, ...]:
        """Terms that the law depends on."""
        return ()

    @property
    def plates(self) -> tuple[Plate, ...]:
        """The copies that the law depends on: a draw from it is one draw for each of them."""
        found = frozenset[Plate]().union(*(child.free_plates for child in self.children))
        return tuple(sorted(found, key=lambda plate: plate.serial))

    def canonical(self, scope: dict[int, tuple]) -> tuple:
        """See `binding.canonical`."""
        raise NotImplementedError

    def substitute(self, replacement: dict[Var, Term]) -> Law:
        """See `binding.substitute`."""
        raise NotImplementedError

    def log_prob(self, *point: Term) -> Term:
        """The log-density (log-probability for discrete laws) at a point, as a term.

        Raises:
            FormulaError: if the point is of the wrong arity or space.
        """
        checked = tuple(_as_point(each, self) for each in point)
        spaces = self.point_spaces
        if len(checked) != len(spaces):
            raise FormulaError(
                f"the log-density of {self} takes {len(spaces)} point(s) "
                f"({', '.join(space.name for space in spaces)}), got {len(checked)}"
            )
        for each, space in zip(checked, spaces, strict=True):
            require_space(each, space, "the log-density of", self)
        return LogDensity(self, checked)

    def prob(self, *point: Term) -> Term:
        """The density (probability for discrete laws) at a point."""
        return exp(self.log_prob(*point))

    @property
    def point_spaces(self) -> tuple[Space, ...]:
        """Spaces of the points at which the density is taken."""
        return (self.space,)

    def copies(self, k: int) -> Replicated:
        """k independent draws; the body of the expectation must reduce over them.

        Raises:
            FormulaError: unless k is an integer of at least 1.
        """
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise FormulaError(f"copies(k) needs an integer k >= 1, got {k!r}")
        return Replicated(self, k)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Law):
            return NotImplemented
        return self is other or self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple:
        return self.canonical({})

    def __str__(self) -> str:
        from boundcheck.language.printing import law_to_text

        return law_to_text(self)

    __repr__ = __str__


@dataclass(frozen=True, eq=False, repr=False)
class ModelLaw(Law):
    """A law that the model supplies under a role, given its arguments."""

    role: str
    args: tuple[Term, ...] = ()

    @property
    def space(self) -> Space:  # type: ignore[override]
        return ROLES[self.role][1][0]

    @property
    def point_spaces(self) -> tuple[Space, ...]:
        return ROLES[self.role][1]

    @property
    def children(self) -> tuple[Term, ...]:
        return self.args

    def canonical(self, scope: dict[int, tuple]) -> tuple:
        return (self.role, *(canonical(arg, scope) for arg in self.args))

    def substitute(self, replacement: dict[Var, Term]) -> Law:
        return ModelLaw(self.role, tuple(substitute(arg, replacement) for arg in self.args))


@dataclass(frozen=True, eq=False, repr=False)
class DensityLaw(Law):
    """A law given by its log-density `log_density` in `var`; divided by its total mass if `rescale`."""

    var: Var
    log_density: Term
    rescale: bool

    @property
    def space(self) -> Space:  # type: ignore[override]
        return self.var.space

    @cached_property
    def children(self) -> tuple[Term, ...]:  # type: ignore[override]
        # As seen from outside: an integral has the same free variables and plates as the law.
        return (Integrate(self.var, self.log_density),)

    def canonical(self, scope: dict[int, tuple]) -> tuple:
        inner = {**scope, self.var.serial: ("bound", len(scope))}
        return ("density", self.rescale, self.var.space, canonical(self.log_density, inner))

    def substitute(self, replacement: dict[Var, Term]) -> Law:
        return DensityLaw(self.var, substitute(self.log_density, replacement), self.rescale)


@dataclass(frozen=True, eq=False, repr=False)
class MixtureLaw(Law):
    """The law of a draw from `component` after `var` was drawn from `mixing`: density E_{var ~ mixing} component."""

    mixing: Law
    var: Var
    component: Law

    @property
    def space(self) -> Space:  # type: ignore[override]
        return self.component.space

    @cached_property
    def children(self) -> tuple[Term, ...]:  # type: ignore[override]
        inner = Apply("add", (*self.component.children, Const(Fraction(0))))
        return (Expect(self.mixing, self.var, inner),)

    def canonical(self, scope: dict[int, tuple]) -> tuple:
        inner = {**scope, self.var.serial: ("bound", len(scope))}
        return ("mixture", self.mixing.canonical(scope), self.component.canonical(inner))

    def substitute(self, replacement: dict[Var, Term]) -> Law:
        return MixtureLaw(self.mixing.substitute(replacement), self.var, self.component.substitute(replacement))


@dataclass(frozen=True)
class Replicated:
    """`law.copies(k)`: k independent draws from a law, waiting for an expectation."""

    law: Law
    k: int
    plate: Plate = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plate", Plate(self.k))


@lru_cache(maxsize=1024)
def expand(term: LogDensity) -> Term:
    """The log-density of a law built in the formula, in terms of the laws it was built from.

    Density law: log_density(point) [- log integral exp log_density]; mixture: log E_mixing component(point).

    Raises:
        CannotCompute: for a density law, where `is_one_of_its_copies`.
    """
    law, (point,) = term.law, term.point
    if isinstance(law, DensityLaw):
        if is_one_of_its_copies(term):
            reason = "its point is one of the copies that the law reduces over, where it may not be put"
            raise CannotCompute("substitution", term.text, reason)
        value = substitute(law.log_density, {law.var: point})
        if not law.rescale:
            return value
        return add(value, multiply(-1, log(Integrate(law.var, exp(law.log_density)))))
    if isinstance(law, MixtureLaw):
        return log(Expect(law.mixing, law.var, exp(LogDensity(law.component, (point,)))))
    raise TypeError(f"{law} is not built in the formula")


def is_one_of_its_copies(term: LogDensity) -> bool:
    """True if the law reduces over copies, as in mean_k q(.|x~_k), and the point z_l was drawn for one of those copies.

    The density is mean_k q(z_l|x~_k). Putting z inside the reduction would make it mean_k q(z_k|x~_k), another number.
    """
    drawn = {plate for point in term.point for plate in point.free_plates}
    if not drawn:
        return False
    return any(isinstance(sub, Reduce) and sub.plate in drawn for child in term.law.children for sub in walk(child))


def laws_in(term: Term) -> Iterator[Law]:
    """Every law that a term mentions, those inside mixtures and built densities included."""
    for sub in walk(term):
        if isinstance(sub, LogDensity | Expect):
            yield from _parts(sub.law)


def _parts(law: Law) -> Iterator[Law]:
    yield law
    if isinstance(law, MixtureLaw):
        yield from _parts(law.mixing)
        yield from _parts(law.component)


def log(term: Term) -> Term:
    """Natural logarithm; log(exp(t)) is t."""
    if isinstance(term, Apply) and term.op == "exp":
        return term.args[0]
    return Apply("log", (term,))


def exp(term: Term) -> Term:
    """Exponential."""
    if isinstance(term, Const) and term.value == 0:
        return Const(Fraction(1))
    return Apply("exp", (term,))


def require_space(point: Term, space: Space, where: str, what: object) -> None:
    """A variable stands only where its space fits; x and x~ are interchangeable (an encoder reads either)."""
    if not isinstance(point, Var) or point.space == space or {point.space, space} <= _DATA:
        return
    raise FormulaError(
        f"{where} {what} is over the space {space.name}, but {point.name} lives in the space {point.space.name}"
    )


def _as_point(value: object, law: Law) -> Term:
    if not isinstance(value, Term):
        raise FormulaError(
            f"the log-density of {law} takes a variable of the formula, got {type(value).__name__} {value!r}"
        )
    return value


class SymbolicModel:
    """The `m` that a formula is called with: it names the laws of a model without having any numbers.

    >>> from boundcheck.language import OBSERVED
    >>> SymbolicModel().encoder(OBSERVED)
    q(.|x)
    """

    latent = Z
    data = X
    corrupted = CORRUPTED

    def prior(self, *nothing: Term) -> Law:
        """p(z)."""
        return self._law("prior", *nothing)

    def likelihood(self, *z: Term) -> Law:
        """p(x | z)."""
        return self._law("likelihood", *z)

    decoder = likelihood

    def encoder(self, *x: Term) -> Law:
        """q(z | x), or q(z | x~) when given a corrupted input."""
        return self._law("encoder", *x)

    def corruption(self, *x: Term) -> Law:
        """c(x~ | x)."""
        return self._law("corruption", *x)

    def auxiliary(self, *z_and_x: Term) -> Law:
        """r(x~ | z, x), the reverse model of a hierarchical variational model."""
        return self._law("auxiliary", *z_and_x)

    def log_joint(self, x: Term, z: Term) -> Term:
        """log p(x, z)."""
        return ModelLaw("joint").log_prob(x, z)

    def posterior(self, x: Term) -> Law:
        """p(z | x), the joint normalised over z."""
        var = Var("z", Z)
        return DensityLaw(var, self.log_joint(x, var), rescale=True)

    def marginal_encoder(self, x: Term) -> Law:
        """q~(z | x) = E_{c(x~|x)} q(z|x~)."""
        var = Var("xt", CORRUPTED)
        return MixtureLaw(self.corruption(x), var, self.encoder(var))

    def _law(self, role: str, *args: Term) -> Law:
        law, spaces = ModelLaw(role, ()), ROLES[role][0]
        if len(args) != len(spaces):
            needed = ", ".join(space.name for space in spaces)
            raise FormulaError(f"the {role} takes {len(spaces)} argument(s) ({needed}), got {len(args)}")
        for arg, space in zip(args, spaces, strict=True):
            require_space(_as_point(arg, law), space, "the argument of the", role)
        return ModelLaw(role, args)

    def __getattr__(self, name: str) -> Callable[..., Law]:
        if name.startswith("__"):  # Python's own protocols ask whether these exist
            raise AttributeError(name)
        raise FormulaError(
            f"a model has no {name!r}; it has {', '.join(role for role in ROLES if role != 'joint')}, "
            "log_joint, posterior, marginal_encoder and the spaces latent, data, corrupted"
        )
