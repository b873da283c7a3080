"""The evidence and the ELBO of 20 binary latents: contraction evaluator, hand-written numpy, and Pyro's TraceEnum_ELBO.

Three models, each with 20 Bernoulli priors and a mean-field encoder, whose joint over 2^20 states is dense (8 MB):

- dense: one likelihood table over all 20 variables, given as log-potentials;
- pairs: a factor for each of the 190 pairs of variables;
- scattered: 40 factors over five variables each, chosen at random.

Every way of computing gets the same factors and returns the same pair of numbers, which is checked. The ways take
turns, so that a change in the machine's load meets all of them; medians are compared.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

N = 20
HALF = N // 2


class Problem(NamedTuple):
    """Log-potentials over some variables each, the priors and the encoder's probabilities, both of shape (20, 2)."""

    name: str
    scopes: list[tuple[int, ...]]
    logs: list[np.ndarray]
    prior: np.ndarray
    encoder: np.ndarray


Way = Callable[[], tuple[float, float]]


def problem(name: str, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    if name == "dense":
        scopes = [tuple(range(N))]
        logs = [rng.normal(size=(2,) * N) - 5]
    elif name == "pairs":
        scopes = list(itertools.combinations(range(N), 2))
        logs = [0.3 * rng.normal(size=(2, 2)) for _ in scopes]
    else:
        scopes = [tuple(sorted(map(int, rng.permutation(N)[:5]))) for _ in range(40)]
        logs = [0.3 * rng.normal(size=(2,) * 5) for _ in scopes]
    prior, encoder = (np.stack([p, 1 - p], axis=1) for p in rng.uniform(0.1, 0.9, size=(2, N)))
    return Problem(name, scopes, logs, prior, encoder)


# --- ways to compute (log p(x), ELBO) ---


def contraction(given: Problem) -> Way:
    from boundcheck.evaluators.contraction import evaluate_many
    from boundcheck.language import E, exp, integrate, log, trace
    from boundcheck.models.factored import Factor, FactoredModel

    priors = [((i,), given.prior[i]) for i in range(N)]
    factors = [Factor(scope, table, log=True) for scope, table in zip(given.scopes, given.logs, strict=True)]
    model = FactoredModel([2] * N, [*priors, *factors], [((i,), given.encoder[i]) for i in range(N)])
    evidence = trace(lambda m, x: log(integrate(m.latent, lambda z: exp(m.log_joint(x, z)))))
    elbo = trace(lambda m, x: E(m.encoder(x), lambda z: m.log_joint(x, z) - m.encoder(x).log_prob(z)))

    def compute() -> tuple[float, float]:
        bounds = evaluate_many([evidence, elbo], model)
        return bounds[0].value, bounds[1].value

    return compute


def unary_part(given: Problem) -> float:
    """E_q[log prior - log encoder], which every hand-written way adds to its E_q[log-potentials]."""
    return float((given.encoder * np.log(given.prior / given.encoder)).sum())


def outer(rows: np.ndarray) -> np.ndarray:
    """The product law of some variables, as a vector over their joint states."""
    vector = np.ones(1)
    for row in rows:
        vector = np.multiply.outer(vector, row).reshape(-1)
    return vector


def plain(given: Problem) -> Way:
    """The whole joint as one table."""

    def compute() -> tuple[float, float]:
        joint = np.zeros((2,) * N)
        tables = list(zip(given.scopes, given.logs, strict=True))
        tables += [((i,), np.log(given.prior[i])) for i in range(N)]
        for scope, table in tables:
            joint += table.reshape([2 if i in scope else 1 for i in range(N)])
        top = joint.max()
        evidence = float(top + np.log(np.exp(joint - top).sum()))
        law = outer(given.encoder)
        elbo = float(law @ (joint.reshape(-1) - np.log(law)))
        return evidence, elbo

    return compute


def einsum(given: Problem) -> Way:
    """opt_einsum on exponentiated factors; its paths are found beforehand."""
    import opt_einsum

    singles = [(i,) for i in range(N)]
    shapes = [table.shape for table in given.logs]

    def expression(scopes: list[tuple[int, ...]], sizes: list[tuple[int, ...]]) -> Callable[..., Any]:
        subscripts = ",".join("".join(map(opt_einsum.get_symbol, scope)) for scope in scopes)
        return opt_einsum.contract_expression(f"{subscripts}->", *sizes, optimize="auto")

    total = expression([*given.scopes, *singles], [*shapes, *[(2,)] * N])
    means = [
        expression([s, *[(i,) for i in s]], [t, *[(2,)] * len(s)]) for s, t in zip(given.scopes, shapes, strict=True)
    ]

    def compute() -> tuple[float, float]:
        tops = [table.max() for table in given.logs]
        weights = [np.exp(table - top) for table, top in zip(given.logs, tops, strict=True)]
        evidence = float(np.log(total(*weights, *given.prior)) + sum(tops))
        elbo = unary_part(given)
        for mean, scope, table in zip(means, given.scopes, given.logs, strict=True):
            elbo += float(mean(table, *[given.encoder[i] for i in scope]))
        return evidence, elbo

    return compute


def blocks_dense(given: Problem) -> Way:
    """One pass over the table in blocks that fit the cache: each is shifted, exponentiated, and summed for both bounds.

    The block of 32 rows is the fastest of 4, 8, ... 64 on the machine that docs/benchmarks.md names.
    """
    (table,) = given.logs
    height = 32
    rows = table.reshape(-1, height, 2**HALF)

    def compute() -> tuple[float, float]:
        columns = np.stack([outer(given.prior[HALF:]), outer(given.encoder[HALF:])], axis=1)
        column, encoder_column = np.ascontiguousarray(columns.T)
        sums, tops, means = np.empty(rows.shape[:2]), np.empty((len(rows), 1)), np.empty(rows.shape[:2])
        buffer = np.empty(rows.shape[1:])
        for i, block in enumerate(rows):
            tops[i] = top = block.max()
            np.subtract(block, top, out=buffer)
            np.exp(buffer, out=buffer)
            np.dot(buffer, column, out=sums[i])
            np.dot(block, encoder_column, out=means[i])
        top = tops.max()
        evidence = float(top + np.log(outer(given.prior[:HALF]) @ (sums * np.exp(tops - top)).reshape(-1)))
        elbo = unary_part(given) + float(outer(given.encoder[:HALF]) @ means.reshape(-1))
        return evidence, elbo

    return compute


def blocks_pairs(given: Problem) -> Way:
    """The last ten variables as columns, the first ten as two times 32 rows: a block is a product of two tables."""
    tables = np.zeros((N, N, 2, 2))
    for (i, j), table in zip(given.scopes, given.logs, strict=True):
        tables[i, j] = table
    bits = {n: np.array(list(itertools.product((0, 1), repeat=n))) for n in (HALF // 2, HALF)}
    hot = {n: np.stack([1 - b, b], axis=2).reshape(2**n, 2 * n).astype(float) for n, b in bits.items()}
    flat = tables.transpose(0, 2, 1, 3).reshape(2 * N, 2 * N)

    def compute() -> tuple[float, float]:
        short, wide = hot[HALF // 2], hot[HALF]
        cut, half = HALF, 2 * HALF
        one, two, three = slice(0, cut), slice(cut, half), slice(half, 2 * N)
        within = [((h @ flat[s, s]) * h).sum(axis=1) for h, s in ((short, one), (short, two), (wide, three))]
        left, right = short @ flat[one, three] @ wide.T, short @ flat[two, three] @ wide.T
        rows = within[0][:, None] + within[1] + short @ flat[one, two] @ short.T
        shifts = [table.max(axis=1) for table in (left, right)]
        left, right = (np.exp(table - s[:, None]) for table, s in zip((left, right), shifts, strict=True))
        rows += shifts[0][:, None] + shifts[1]
        column_shift, row_shift = within[2].max(), rows.max()
        column = np.exp(within[2] - column_shift) * outer(given.prior[HALF:])
        sums = (left * column) @ right.T
        weights = np.exp(rows - row_shift) * outer(given.prior[:HALF]).reshape(rows.shape)
        evidence = float(np.log((weights * sums).sum()) + row_shift + column_shift)
        law = given.encoder.reshape(-1)
        return evidence, unary_part(given) + float(law @ flat @ law)

    return compute


WAYS: dict[str, dict[str, Callable[[Problem], Way]]] = {
    "dense": {"boundcheck": contraction, "plain table": plain, "opt_einsum": einsum, "fused blocks": blocks_dense},
    "pairs": {"boundcheck": contraction, "plain table": plain, "opt_einsum": einsum, "fused blocks": blocks_pairs},
    "scattered": {"boundcheck": contraction, "plain table": plain, "opt_einsum": einsum},
}


# --- Pyro, in a process and an environment of its own ---


class Pyro:
    """TraceEnum_ELBO in another interpreter. One call computes what a `Way` does: the evidence, then the ELBO.

    The ELBO enumerates the guide; the evidence is the ELBO of an empty guide with the model enumerated.
    """

    def __init__(self, python: str, given: Problem) -> None:
        with tempfile.NamedTemporaryFile(suffix=".npz", delete=False) as file:
            tables = {f"table{i}": table for i, table in enumerate(given.logs)}
            np.savez(file, prior=given.prior, encoder=given.encoder, scopes=json.dumps(given.scopes), **tables)
        self.file = file.name
        command = [python, str(Path(__file__).resolve()), "--worker", self.file]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.mebibytes = 0.0

    def __call__(self) -> tuple[float, float]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("the Pyro process ended; is pyro-ppl installed in that environment?")
        reply = json.loads(answer)
        self.mebibytes = max(self.mebibytes, reply["mebibytes"])
        return reply["evidence"], reply["elbo"]

    def close(self) -> None:
        self.process.communicate()
        os.unlink(self.file)


def pyro_worker(file: str) -> None:
    import pyro
    import pyro.distributions as dist
    import torch
    from pyro.infer import TraceEnum_ELBO, config_enumerate
    from pyro.ops.indexing import Vindex

    torch.set_default_dtype(torch.float64)
    with np.load(file, allow_pickle=False) as data:
        prior, encoder = torch.from_numpy(data["prior"]), torch.from_numpy(data["encoder"])
        scopes = json.loads(str(data["scopes"]))
        tables = [torch.from_numpy(data[f"table{i}"]) for i in range(len(scopes))]

    @config_enumerate
    def model() -> None:
        z = [pyro.sample(f"z{i}", dist.Categorical(prior[i])) for i in range(N)]
        for number, (scope, table) in enumerate(zip(scopes, tables, strict=True)):
            pyro.factor(f"factor{number}", Vindex(table)[tuple(z[i] for i in scope)])

    @config_enumerate
    def guide() -> None:
        for i in range(N):
            pyro.sample(f"z{i}", dist.Categorical(encoder[i]))

    def nothing() -> None:
        pass

    bound = TraceEnum_ELBO(max_plate_nesting=0)
    with torch.no_grad():
        for _ in sys.stdin:
            before = resident("VmRSS", reset=True)
            evidence, elbo = -bound.loss(model, nothing), -bound.loss(model, guide)
            used = resident("VmHWM") - before
            print(json.dumps({"evidence": evidence, "elbo": elbo, "mebibytes": used / 1024}), flush=True)


def resident(field: str, reset: bool = False) -> float:
    """Resident memory in KiB now (VmRSS) or at its highest (VmHWM) since the last reset; 0 where Linux is not."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = status.read_text(encoding="ascii").splitlines()
    return float(next(line for line in lines if line.startswith(field)).split()[1])


# --- measuring ---


def peak_mebibytes(way: Way) -> float:
    """The most that one call allocates beyond what exists already."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        way()
        return (tracemalloc.get_traced_memory()[1] - before) / 2**20
    finally:
        tracemalloc.stop()


def measure(given: Problem, rounds: int, pyro_python: str | None) -> None:
    importlib.import_module("boundcheck.evaluators.contraction")
    started = time.perf_counter()
    ours = contraction(given)
    first = ours()
    cold = time.perf_counter() - started
    ways: dict[str, Way] = {name: make(given) for name, make in WAYS[given.name].items()}
    pyro = Pyro(pyro_python, given) if pyro_python else None
    if pyro is not None:
        ways["Pyro TraceEnum_ELBO"] = pyro
    for name, way in ways.items():
        np.testing.assert_allclose(way(), first, rtol=0, atol=1e-9, err_msg=name)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name, way in order.permutation(np.array(list(ways.items()), dtype=object)).tolist():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    memory = {name: peak_mebibytes(way) for name, way in ways.items() if way is not pyro}
    if pyro is not None:
        memory["Pyro TraceEnum_ELBO"] = pyro.mebibytes
        pyro.close()
    base = seconds["boundcheck"]
    print(f"\n{given.name}: log p(x) = {first[0]:.10f}, ELBO = {first[1]:.10f}; medians of {rounds} interleaved rounds")
    print(f"{'':22}{'ms':>10}{'ratio':>10}{'least ms':>10}{'ratio':>10}{'MiB':>10}")
    for name, times in seconds.items():
        median, least = statistics.median(times), min(times)
        ratios = median / statistics.median(base), least / min(base)
        print(f"{name:22}{1e3 * median:10.2f}{ratios[0]:10.2f}{1e3 * least:10.2f}{ratios[1]:10.2f}{memory[name]:10.2f}")
    print(f"boundcheck's first call, with building, checking and planning: {1e3 * cold:.1f} ms")


def larger(rounds: int) -> None:
    """Models whose joint no table could hold, by the contraction evaluator alone."""
    from boundcheck.catalogue.objectives import elbo, eubo, log_evidence
    from boundcheck.evaluators.contraction import evaluate
    from boundcheck.models.factored import Factor, FactoredModel

    rng = np.random.default_rng(0)
    across = [(12 * row + i, 12 * row + i + 1) for row in range(12) for i in range(11)]
    shapes = {
        "chain of 300": (300, [(i, i + 1) for i in range(299)]),
        "grid of 12 x 12": (144, [*across, *((i, i + 12) for i in range(132))]),
        "all pairs of 24": (24, list(itertools.combinations(range(24), 2))),
        "all pairs of 30": (30, list(itertools.combinations(range(30), 2))),
    }
    print(f"\nlarger models of binary variables; medians of {rounds} rounds, after a first call that made the plan")
    print(f"{'ms':22}{'log p(x)':>10}{'ELBO':>10}{'EUBO':>10}")
    for name, (n, pairs) in shapes.items():
        factors = [Factor(pair, rng.normal(size=(2, 2)), log=True) for pair in pairs]
        model = FactoredModel([2] * n, factors, [((i,), [0.4, 0.6]) for i in range(n)])
        row = f"{name:22}"
        for bound in (log_evidence, elbo, eubo):
            if bound is eubo and n == 30:
                row += f"{'-':>10}"  # the mean under the posterior goes through all 2^30 states
                continue
            evaluate(bound, model)
            times = []
            for _ in range(rounds):
                start = time.perf_counter()
                evaluate(bound, model)
                times.append(time.perf_counter() - start)
            row += f"{1e3 * statistics.median(times):10.1f}"
        print(row)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks factors", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--models", nargs="+", choices=WAYS, default=list(WAYS), help="which models (default: all)")
    parser.add_argument("--rounds", type=int, default=31, help="rounds of the interleaved measurement")
    parser.add_argument("--pyro-python", help="the interpreter of an environment with requirements-pyro.txt")
    parser.add_argument("--larger", action="store_true", help="only time the contraction evaluator on larger models")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        pyro_worker(options.worker)
        return 0
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, numpy {np.__version__}")
    if options.larger:
        larger(min(options.rounds, 7))
        return 0
    if not options.pyro_python:
        print("Pyro is left out: name an interpreter that has it, with --pyro-python (see requirements-pyro.txt).")
    for name in options.models:
        measure(problem(name), options.rounds, options.pyro_python)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
