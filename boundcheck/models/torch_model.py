"""Torch models: a prior, an encoder, a decoder and, optionally, a corruption and an auxiliary model, as callables.

Each callable takes one batch, of shape (rows, *event), and returns a torch.distributions object with one law for each
row. That is how such functions are called in training, so convolutions and `x.flatten(1)` work: whoever evaluates a
formula folds its draws into the rows. Whatever is wrong with shapes, supports or numbers is found here, once, and
said in the words of the user's own model: a log-density summed over the wrong axes would else be a wrong bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from boundcheck.errors import BadInput, BoundcheckError, require
from boundcheck.models.torch_state import (
    out_of_memory,
    plain,
    random_state,
    refuse_devices,
    tried,
    with_inner_gradients,
)
from boundcheck.models.torch_supports import (
    in_support,
    moved_inside,
    refuse_data,
    refuse_parameters,
    support_is_discrete,
    support_is_fixed,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.distributions import Distribution

    from boundcheck.language.terms import Term
else:
    torch = require("torch", extra="torch", feature="a torch model")
    Tensor = torch.Tensor
    Distribution = torch.distributions.Distribution

NAMES = {
    "prior": "prior()",
    "likelihood": "decoder(z)",
    "encoder": "encoder(x)",
    "corruption": "corruption(x)",
    "auxiliary": "auxiliary(z, x)",
}
"""The roles of the language, as a torch model spells them."""

_POINTS = {"prior": "z", "likelihood": "x", "encoder": "z", "corruption": "x", "auxiliary": "x"}


class TorchModel:
    """p(z), q(z|x), p(x|z) and optionally c(x~|x), r(x~|z,x), as callables that return torch.distributions objects.

    - `prior()`: no batch axes, event shape that of one z;
    - `encoder(x)`, `decoder(z)`, `corruption(x)`, `auxiliary(z, x)`: each argument is of shape (rows, *event), and the
      law that comes back has the batch shape (rows,), with all other axes in its event
      (`torch.distributions.Independent`).

    The callables must be functions of their arguments: dropout and batch normalisation have to be in evaluation mode.

    Args:
        prior: p(z).
        encoder: q(z | x); called with x~ where the formula corrupts x.
        decoder: p(x | z).
        corruption: c(x~ | x).
        auxiliary: r(x~ | z, x), the reverse model of a hierarchical variational model.

    Raises:
        BadInput: an argument that cannot be called.

    >>> import torch
    >>> from torch.distributions import Independent, Normal
    >>> model = TorchModel(
    ...     prior=lambda: Independent(Normal(torch.zeros(2), 1.0), 1),
    ...     encoder=lambda x: Independent(Normal(x / 2, 0.7), 1),
    ...     decoder=lambda z: Independent(Normal(z, 1.0), 1),
    ... )
    >>> model.law("encoder", torch.zeros(5, 2)).batch_shape
    torch.Size([5])
    """

    def __init__(
        self,
        *,
        prior: Callable[[], Distribution],
        encoder: Callable[[Tensor], Distribution],
        decoder: Callable[[Tensor], Distribution],
        corruption: Callable[[Tensor], Distribution] | None = None,
        auxiliary: Callable[[Tensor, Tensor], Distribution] | None = None,
    ) -> None:
        given = {
            "prior": prior,
            "likelihood": decoder,
            "encoder": encoder,
            "corruption": corruption,
            "auxiliary": auxiliary,
        }
        for role, function in given.items():
            if function is not None and not callable(function):
                raise BadInput(_word(role), function, f"a function {NAMES[role]} that returns a torch distribution")
        self._functions: dict[str, Callable[..., Any]] = {r: f for r, f in given.items() if f is not None}
        self.module: torch.nn.Module | None = None
        self.inner_gradients, self._tried = False, set[str]()

    @classmethod
    def wrap(cls, model: object) -> TorchModel:
        """The model of any object, such as an nn.Module, that has the five functions as methods or attributes.

        `likelihood` may stand for `decoder`; `corruption` and `auxiliary` may be absent or None. An object with a
        method `mixing` is a `boundcheck.models.hierarchical.HierarchicalModel`.

        Raises:
            BadInput: a function that is missing, naming it.
        """
        if isinstance(model, TorchModel):
            return model
        if hasattr(model, "mixing"):
            return _hierarchical(model)
        found = {name: getattr(model, name, None) for name in ("prior", "encoder", "corruption", "auxiliary")}
        found["decoder"] = getattr(model, "decoder", None) or getattr(model, "likelihood", None)
        for name in ("prior", "encoder", "decoder"):
            if found[name] is None:
                raise BadInput(
                    "the model",
                    type(model).__name__,
                    f"an object with a method {name} that returns a torch distribution",
                    "or name the functions yourself: TorchModel(prior=..., encoder=..., decoder=...)",
                )
        wrapped = cls(**found)  # type: ignore[arg-type]
        if isinstance(model, torch.nn.Module):
            wrapped.module = model
        return wrapped

    def for_formula(self, term: Term) -> TorchModel:
        """The model whose laws a formula means: this one, unless a kind of model says otherwise."""
        return self

    def has(self, role: str) -> bool:
        """True if the model supplies a role: prior, likelihood, encoder, corruption or auxiliary."""
        return role in self._functions

    @property
    def dtype(self) -> torch.dtype | None:
        """The floating type of the wrapped module's parameters, if there is a module with any."""
        parameters = self.module.parameters() if self.module is not None else iter(())
        return next((p.dtype for p in parameters if p.is_floating_point()), None)

    @property
    def device(self) -> torch.device | None:
        """Where the wrapped module's parameters are, if there is a module with any."""
        parameters = self.module.parameters() if self.module is not None else iter(())
        return next((p.device for p in parameters), None)

    def data(self, x: Any) -> Tensor:
        """Observations of shape (examples, *event), on the device and in the floating type of the module's parameters.

        Raises:
            BadInput: no examples, no batch axis, NaN or infinities, or values that are not numbers.
        """
        try:
            batch = torch.as_tensor(x)
        except (TypeError, ValueError, RuntimeError) as error:
            raise BadInput("x", x, "an array of numbers of shape (examples, *event)", _first_line(error)) from None
        if batch.ndim == 0 or batch.shape[0] == 0:
            raise BadInput("the shape of x", tuple(batch.shape), "(examples, *event) with at least one example")
        if batch.is_floating_point():
            bad = ~torch.isfinite(batch).flatten(1).all(1) if batch.ndim > 1 else ~torch.isfinite(batch)
            if bool(bad.any()):
                where = int(bad.nonzero()[0])
                raise BadInput(f"x[{where}]", "not finite", "finite numbers", "remove or repair that example")
            batch = batch.to(self.dtype or batch.dtype)
        return batch if self.device is None else batch.to(self.device)

    # --- laws ---

    def law(self, role: str, *args: Tensor) -> Distribution:
        """The law of a role given its arguments, each of shape (rows, *event), with its shapes checked.

        Raises:
            BadInput: the model lacks the role, the user's function fails, returns no distribution, or one whose batch
                shape is not (rows,).
        """
        shown = NAMES[role]
        if role not in self._functions:
            remedy = f"write it as a method, or pass {_word(role)}=... to TorchModel"
            raise BadInput("the model", f"without {_word(role)}", f"a model with {shown}", remedy)
        try:
            law = self._made(role, args)
        except BoundcheckError:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise
            refuse_devices(shown, error)
            shapes = [tuple(arg.shape) for arg in args]
            raise BadInput(
                f"the shape given to {shown}",
                shapes[0] if len(shapes) == 1 else shapes,
                "a batch that the model can take",
                f"it raised {type(error).__name__}: {_first_line(error)}",
            ) from error
        if not isinstance(law, Distribution):
            raise BadInput(shown, law, "a torch.distributions object", "return the law itself, not its parameters")
        expected = (args[0].shape[0],) if args else ()
        self._check_batch(shown, law, expected)
        refuse_parameters(law, shown)
        return law

    def _made(self, role: str, args: Sequence[Tensor]) -> Any:
        """What the user's function returns; out of inference mode, if some law of the model takes gradients."""
        function = self._functions[role]

        def outside() -> Any:
            with with_inner_gradients():
                return function(*(plain(arg) for arg in args))

        if self.inner_gradients:
            return outside()
        if role in self._tried or not torch.is_inference_mode_enabled():
            return function(*args)
        self._tried.add(role)
        with random_state(args[0].device if args else torch.device("cpu"), 0):
            law, self.inner_gradients = tried(lambda: function(*args), outside)
        return law

    def _check_batch(self, shown: str, law: Distribution, expected: tuple[int, ...]) -> None:
        got = tuple(law.batch_shape)
        if got == expected:
            return
        extra = len(got) - len(expected)
        if extra > 0 and got[: len(expected)] == expected:
            remedy = f"declare its last {extra} axes as one event: torch.distributions.Independent(..., {extra})"
        else:
            remedy = "give one law for each row, all other axes in its event: torch.distributions.Independent(..., n)"
        raise BadInput(
            f"the batch shape of {shown}", got, f"{expected} (its event shape is {tuple(law.event_shape)})", remedy
        )

    def sample(self, role: str, law: Distribution, shape: Sequence[int]) -> Tensor:
        """Draws of shape (*shape, *batch, *event), without gradient.

        Raises:
            BadInput: the law cannot be sampled.
        """
        try:
            with with_inner_gradients(self.inner_gradients):
                return law.sample(torch.Size(shape))
        except BoundcheckError:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise
            refuse_devices(NAMES[role], error)
            remedy = f"it raised {type(error).__name__}: {_first_line(error)}"
            raise BadInput(f"a draw from {NAMES[role]}", law, "a law that can be sampled", remedy) from error

    def draw_pair(self, rows: int) -> tuple[Tensor, Tensor]:
        """x and z from the joint law p(x,z), so that z is an exact draw from the posterior of x.

        Raises:
            BadInput: laws that cannot be sampled.
        """
        z = self.sample("prior", self.law("prior"), (rows,))
        return self.sample("likelihood", self.law("likelihood", z), ()), z

    def log_prob(
        self,
        role: str,
        law: Distribution,
        point: Tensor,
        event: Sequence[int],
        observed: Callable[[int], str] | None = None,
        *,
        supported: bool = False,
        allow_nan: bool = False,
    ) -> Tensor:
        """log-density in nats at points of shape (..., *batch, *event), of shape (..., *batch), in the model's dtype.

        A point outside the law's support has density zero, so -inf, whatever the law's `validate_args`. Only for
        `observed` data, whose rows that function names, is it refused: grey pixels for a Bernoulli decoder are a
        mistake. (Not so if the support moves with continuous parameters, as a uniform law's does.) Points that are
        known to be `supported` are not looked at again.

        Raises:
            BadInput: a point whose event shape is not the law's, observed data outside the support, or a log-density
                that has another shape or, unless `allow_nan`, is NaN.
        """
        shown, letter = NAMES[role], _POINTS[role]
        if tuple(law.event_shape) != tuple(event):
            raise BadInput(
                f"the event shape of {shown}",
                tuple(law.event_shape),
                f"{tuple(event)}, the shape of one {letter}",
                f"make {shown} and {letter} agree; torch.distributions.Independent(..., n) declares n axes as an event",
            )
        expected = tuple(point.shape[: point.ndim - len(event)])
        inside = None if supported else in_support(law, point, expected, drawn=role != "likelihood")
        if inside is not None and bool(inside.all()):
            inside = None
        if inside is not None and observed is not None and (support_is_fixed(law) or support_is_discrete(law)):
            refuse_data(law, point, inside, observed)
        try:
            with with_inner_gradients(self.inner_gradients):
                accepted = point if inside is None else moved_inside(law, point, inside, len(event))
                value = law.log_prob(plain(accepted) if self.inner_gradients else accepted)
        except Exception as error:
            if out_of_memory(error):
                raise
            refuse_devices(shown, error)
            raise BadInput(
                f"the log-density of {shown}",
                f"{letter} of shape {tuple(point.shape)}",
                "a point that it accepts",
                f"it raised {type(error).__name__}: {_first_line(error)}",
            ) from error
        if tuple(value.shape) != expected:
            raise BadInput(
                f"the shape of {shown}.log_prob({letter})",
                tuple(value.shape),
                f"{expected}, one number for each draw and row",
                "sum over the event: torch.distributions.Independent(..., n)",
            )
        if inside is not None:
            value = torch.where(inside, value, -math.inf)
        if not allow_nan and bool(value.isnan().any()):
            row = int(value.isnan().nonzero()[0][-1]) if expected else 0
            raise BadInput(
                f"the log-density of {shown}", math.nan, "a number", f"row {row} of the batch: check weights and data"
            )
        return value


def _hierarchical(model: object) -> TorchModel:
    from boundcheck.models.hierarchical import HierarchicalModel

    wanted = ("prior", "mixing", "encoder", "decoder", "auxiliary", "mixing_size")
    for name in wanted:
        if getattr(model, name, None) is None:
            shown = type(model).__name__
            raise BadInput("the model", shown, f"an object with {name}, since it has a method mixing")
    wrapped = HierarchicalModel(**{name: getattr(model, name) for name in wanted})
    if isinstance(model, torch.nn.Module):
        wrapped.module = model
    return wrapped


# --- words ---------------------------------------------------------------------------------------------------------


def _word(role: str) -> str:
    return NAMES[role].partition("(")[0]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "no message"


__all__ = [
    "NAMES",
    "TorchModel",
    "in_support",
    "out_of_memory",
    "random_state",
    "refuse_data",
    "support_is_discrete",
    "support_is_fixed",
]
