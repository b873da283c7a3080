"""Finite models: tables of probabilities, kept exactly.

Any number of observed states x, latent states z and corrupted inputs x~; z and x~ may be tuples of discrete variables
(product spaces), in which case their tables have one axis per variable. Every entry is a rational: an int, a
Fraction, text such as "1/3" or "0.1", or a float, which is read as the decimal that it prints as.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundcheck.errors import BadInput
from boundcheck.language.laws import ROLES
from boundcheck.language.terms import CORRUPTED, Space, X
from boundcheck.models.tables import Entries, checked_rows, parse_table, require_axes, require_shape, written_float

FORMAT = "boundcheck-model/1"


class FiniteModel:
    """p(x, z), an encoder, and optionally a corruption and an auxiliary model, as tables.

    With S the shape of z and C the shape of x~ (one axis per variable):

    - `prior` of shape S and `likelihood` of shape S + (X,), or `joint` of shape (X,) + S;
    - `encoder` of shape rows + S, with one row for each x~ (or for each x if there is no corruption);
    - `corruption` of shape (X,) + C; `auxiliary` r(x~ | z, x) of shape S + (X,) + C.

    If there are as many x~ as x, the corrupted input number i looks like the observation number i, so q(z | x) is
    defined too. Otherwise only q(z | x~) is.

    Raises:
        BadInput: an entry that is negative or no number, a row that does not sum to one, or tables whose shapes do
            not fit; the message names the table and the row.

    >>> model = FiniteModel(prior=[0.5, 0.5], likelihood=[[1, 0], ["1/3", "2/3"]], encoder=[[0.9, 0.1], [0, 1]])
    >>> model.sizes
    {'x': 2, 'z': 2}
    >>> print(model.table("joint")[1, 1])
    1/3
    """

    def __init__(
        self,
        *,
        prior: Entries | None = None,
        likelihood: Entries | None = None,
        joint: Entries | None = None,
        encoder: Entries | None = None,
        corruption: Entries | None = None,
        auxiliary: Entries | None = None,
    ) -> None:
        if (joint is None) == (prior is None and likelihood is None) or (prior is None) != (likelihood is None):
            given = [n for n, t in [("prior", prior), ("likelihood", likelihood), ("joint", joint)] if t is not None]
            raise BadInput("the model", given or "no tables", "either joint, or prior and likelihood")
        tables: dict[str, NDArray[Any]] = {}
        if joint is not None:
            raw = parse_table("joint", joint)
            require_axes("joint", raw, at_least=2)
            self.latent_shape: tuple[int, ...] = raw.shape[1:]
            tables["joint"] = checked_rows("joint", raw.reshape(1, -1)).reshape(raw.shape[0], -1)
        else:
            raw = parse_table("prior", prior)
            require_axes("prior", raw, at_least=1)
            self.latent_shape = raw.shape
            tables["prior"] = checked_rows("prior", raw.reshape(1, -1)).reshape(-1)
            rows = parse_table("likelihood", likelihood)
            require_shape("likelihood", rows, (*self.latent_shape, None), "the shape of z, then one axis for x")
            tables["likelihood"] = checked_rows("likelihood", rows.reshape(-1, rows.shape[-1]))
            # Rows kept as floats leave a joint of floats.
            floats = [table for table in tables.values() if table.dtype != object]
            rows, prior_of_z = tables["likelihood"], tables["prior"][:, None]
            tables["joint"] = (rows * prior_of_z).T.astype(np.float64 if floats else object)
        n_x, n_z = tables["joint"].shape
        self.corrupted_shape: tuple[int, ...] = ()
        if corruption is not None:
            raw = parse_table("corruption", corruption)
            require_axes("corruption", raw, at_least=2)
            require_shape("corruption", raw, (n_x, *raw.shape[1:]), "one row for each x")
            self.corrupted_shape = raw.shape[1:]
            tables["corruption"] = checked_rows("corruption", raw.reshape(n_x, -1))
        n_c = math.prod(self.corrupted_shape) if corruption is not None else 0
        if encoder is not None:
            raw = parse_table("encoder", encoder)
            inputs = self.corrupted_shape if corruption is not None else (n_x,)
            what = "x~" if corruption is not None else "x"
            require_shape("encoder", raw, (*inputs, *self.latent_shape), f"one row for each {what}, of the shape of z")
            tables["encoder"] = checked_rows("encoder", raw.reshape(-1, n_z))
        if auxiliary is not None:
            if corruption is None:
                raise BadInput("auxiliary", "given", "a corruption beside it", "r(x~|z,x) needs the states of x~")
            raw = parse_table("auxiliary", auxiliary)
            require_shape("auxiliary", raw, (*self.latent_shape, n_x, *self.corrupted_shape), "z, then x, then x~")
            tables["auxiliary"] = checked_rows("auxiliary", raw.reshape(-1, n_c)).reshape(n_z, n_x, n_c)
        self._tables = tables
        self._derived: dict[str, NDArray[Any]] = {}
        self._sizes = {"x": n_x, "z": n_z} | ({"x~": n_c} if corruption is not None else {})

    # --- what evaluators read ---

    @property
    def sizes(self) -> dict[str, int]:
        """The number of states of x, z and, with a corruption, x~."""
        return dict(self._sizes)

    def size(self, space: Space) -> int:
        """The number of states of a space.

        Raises:
            BadInput: if the model has no such space.
        """
        if space.name not in self._sizes:
            remedy = "give the model a corruption" if space == CORRUPTED else "use m.latent, m.data or m.corrupted"
            raise BadInput("the space", space.name, f"one of {', '.join(self._sizes)}", remedy)
        return self._sizes[space.name]

    def table(self, role: str, inputs: tuple[Space, ...] | None = None) -> NDArray[Any]:
        """The probabilities of a role as an array of Fractions (floats for tables too large to keep exactly).

        Axes: the role's arguments, then its point; product spaces are flattened. `inputs` are the spaces of the
        arguments as a formula uses them, because an encoder of x~ may have no row for x.

        Raises:
            BadInput: if the model has no such table.
        """
        if role in ("prior", "likelihood") and role not in self._tables:
            if role not in self._derived:
                self._derived[role] = self._split_joint(role)
            return self._derived[role]
        if role not in self._tables:
            raise BadInput("the model", "without " + role, f"a model with the table {role}", f"pass {role}=[...]")
        if role == "encoder" and inputs and "x~" in self._sizes:
            if inputs[0] == X and self._sizes["x"] != self._sizes["x~"]:
                n_x, n_c = self._sizes["x"], self._sizes["x~"]
                raise BadInput(
                    "q(z|x)", f"an encoder of the {n_c} corrupted inputs", f"a row for each of the {n_x} observations",
                    "the formula reads the clean x: give as many x~ as x, or a formula that corrupts x first",
                )  # fmt: skip
        elif role == "encoder" and inputs and inputs[0] == CORRUPTED:
            self.size(CORRUPTED)
        return self._tables[role]

    def is_exact(self) -> bool:
        """True if every table is kept as rationals."""
        return all(table.dtype == object for table in self._tables.values())

    @property
    def roles(self) -> tuple[str, ...]:
        """The tables that the model was given."""
        return tuple(self._tables)

    def _split_joint(self, role: str) -> NDArray[Any]:
        joint = self._tables["joint"]
        prior = joint.sum(axis=0)
        if role == "prior":
            return prior
        # Where p(z) = 0 any conditional is right, since it only ever meets a weight or a density of zero.
        uniform = Fraction(1, joint.shape[0]) if joint.dtype == object else 1.0 / joint.shape[0]
        rows = [column / p if p else np.full(len(column), uniform) for column, p in zip(joint.T, prior, strict=True)]
        return np.array(rows, dtype=joint.dtype)

    # --- what a user reads ---

    def holes(self) -> Iterator[str]:
        """Sentences about states where the encoder and the posterior do not have the same support.

        q(z|.) = 0 where p(x,z) > 0 leaves an ELBO finite but makes importance weights blind to z; p(x,z) = 0 where
        q(z|.) > 0 makes an ELBO -inf.
        """
        if "encoder" not in self._tables:
            return
        joint, encoder = self._tables["joint"], self._tables["encoder"]
        corruption = self._tables.get("corruption")
        for x in range(joint.shape[0]):
            rows = range(len(encoder)) if corruption is not None else [x]
            for row in rows:
                if corruption is not None and not corruption[x, row]:
                    continue
                name = f"q(z|x~={row})" if corruption is not None else f"q(z|x={row})"
                for z in range(joint.shape[1]):
                    if joint[x, z] and not encoder[row, z]:
                        yield f"{name} is 0 at z={z}, where p(x={x},z={z}) > 0: importance weights never see this z"
                    elif encoder[row, z] and not joint[x, z]:
                        yield f"{name} > 0 at z={z}, where p(x={x},z={z}) is 0: log-weights there are -inf"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FiniteModel):
            return NotImplemented
        return self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_json(), sort_keys=True))

    def __repr__(self) -> str:
        tables = ", ".join(f"{role}={self._show(role)}" for role in self._given)
        return f"FiniteModel({tables})"

    @property
    def _given(self) -> tuple[str, ...]:
        base = ("prior", "likelihood") if "likelihood" in self._tables else ("joint",)
        return (*base, *(role for role in ("encoder", "corruption", "auxiliary") if role in self._tables))

    def _shape(self, role: str) -> tuple[int, ...]:
        n_x = (self._sizes["x"],)
        inputs = self.corrupted_shape if "corruption" in self._tables else n_x
        return {
            "prior": self.latent_shape,
            "likelihood": self.latent_shape + n_x,
            "joint": n_x + self.latent_shape,
            "encoder": inputs + self.latent_shape,
            "corruption": n_x + self.corrupted_shape,
            "auxiliary": self.latent_shape + n_x + self.corrupted_shape,
        }[role]

    def _nested(self, role: str) -> Any:
        table = self._tables[role].reshape(self._shape(role))
        text = np.vectorize(str, otypes=[object])(table) if table.dtype == object else table
        return text.tolist()

    def _show(self, role: str) -> str:
        if self._tables[role].size > 64:
            return f"<{' x '.join(map(str, self._shape(role)))}>"
        return str(self._nested(role)).replace("'", "")

    def to_json(self) -> dict[str, Any]:
        """The model as a JSON-ready object, exactly."""
        return {"format": FORMAT, "kind": "finite"} | {role: self._nested(role) for role in self._given}

    @classmethod
    def from_json(cls, data: object) -> FiniteModel:
        """The model of a JSON object.

        Raises:
            BadInput: if the object is no finite model; the message names the field.
        """
        if not isinstance(data, Mapping):
            raise BadInput("the model file", data, 'an object such as {"prior": [...], ...}', "see docs: model files")
        fields = dict(data)
        form, kind = fields.pop("format", FORMAT), fields.pop("kind", "finite")
        if form != FORMAT or kind != "finite":
            raise BadInput("format and kind", (form, kind), f"{FORMAT!r} and 'finite'", "re-save it with this version")
        unknown = sorted(set(fields) - set(ROLES))
        if unknown:
            raise BadInput("the model file", unknown[0], f"only the tables {', '.join(ROLES)}", "remove or rename it")
        return cls(**fields)

    def save(self, path: str | Path) -> None:
        """Write the model as a JSON file."""
        Path(path).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")

    @cached_property
    def log_tables(self) -> dict[tuple[str, str], NDArray[Any]]:
        """A cache for evaluators: what they derived from a table, by (evaluator, role)."""
        return {}


def load_model(path: str | Path) -> FiniteModel:
    """A model from its JSON file; decimals are read exactly as they are written.

    Raises:
        BadInput: a file that is missing, empty, not JSON, or no model.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("the model file", str(path), "a readable JSON file", str(error)) from None
    if not text.strip():
        raise BadInput("the model file", str(path), "a JSON model", "the file is empty")
    try:
        data = json.loads(text, parse_float=written_float, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadInput("the model file", str(path), "valid JSON", str(error)) from None
    return FiniteModel.from_json(data)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a probability")


__all__ = ["FORMAT", "FiniteModel", "load_model"]
