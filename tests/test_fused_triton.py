"""The kernel for GPUs: in triton's interpreter where there is no GPU, on the GPU where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("triton was imported before, to compile; run this file on its own", allow_module_level=True)
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, on the next line
pytest.importorskip("triton", reason="the extra 'gpu' is not installed")

from test_fused import head_problem, reference  # noqa: E402

from boundcheck.errors import CannotCompute  # noqa: E402
from boundcheck.evidence.fused_triton import TritonHead, work  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(
    ("rows", "hidden", "pixels"), [(1, 1, 1), (5, 3, 17), (65, 33, 65), (64, 64, 128), (130, 20, 70)]
)
@pytest.mark.parametrize("scale", [0.1, 3.0, 1e3])
def test_the_kernel_gives_the_truth_within_the_stated_error(rows: int, hidden: int, pixels: int, scale: float) -> None:
    weight, bias, h, x = head_problem(pixels, hidden, scale, rows)
    truth = torch.from_numpy(reference(weight, bias, h, x))
    head = TritonHead(weight.to(DEVICE), bias.to(DEVICE))
    values = head.log_prob(h.to(DEVICE), x.to(DEVICE)).cpu()
    assert values.dtype == torch.float64
    assert bool(((values - truth).abs() <= head.error_bound(h.to(DEVICE), truth.to(DEVICE)).cpu()).all())


def test_rows_may_share_examples() -> None:
    weight, bias, h, x = head_problem(40, 10, 1.0, 90)
    which = torch.arange(90) % 7
    head = TritonHead(weight.to(DEVICE), bias.to(DEVICE))
    values = head.log_prob(h.to(DEVICE), x[:7].to(DEVICE), which.to(DEVICE)).cpu()
    torch.testing.assert_close(values, torch.from_numpy(reference(weight, bias, h, x[which])), rtol=1e-5, atol=1e-4)
    one = head.log_prob(h.to(DEVICE), x[:1].to(DEVICE)).cpu()
    torch.testing.assert_close(one, torch.from_numpy(reference(weight, bias, h, x[:1])), rtol=1e-5, atol=1e-4)


def test_a_nan_stays_in_its_row() -> None:
    weight, bias, h, x = head_problem(40, 10, 1.0, 5)
    h[3, 2] = torch.nan
    values = TritonHead(weight.to(DEVICE), bias.to(DEVICE)).log_prob(h.to(DEVICE), x.to(DEVICE))
    assert values.isnan().tolist() == [False, False, False, True, False]


def test_no_bias_is_a_bias_of_zero() -> None:
    weight, bias, h, x = head_problem(20, 10, 1.0, 5)
    values = TritonHead(weight.to(DEVICE), None).log_prob(h.to(DEVICE), x.to(DEVICE)).cpu()
    torch.testing.assert_close(values, torch.from_numpy(reference(weight, 0 * bias, h, x)), rtol=1e-5, atol=1e-4)


COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from boundcheck.evidence import fused_triton as kernel

given = ["*fp32", "*fp32", "*fp32", "*u8", "*i64", "*fp64", "i32", "i32", "i32"]
names = kernel._log_probs.arg_names
for target in sys.argv[1:]:
    capability, precision = target.split(":")
    constants = dict(zip(names[len(given):], (precision, *kernel.TILE), strict=True))
    signature = {**dict(zip(names, given)), **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(fn=kernel._log_probs, signature=signature, constexprs=constants)
    gpu = GPUTarget("cuda", int(capability), 32)
    made = triton.compile(source, target=gpu, options={"num_warps": kernel.WARPS})
    print(target, len(made.asm["cubin"]) > 0, "mma" in made.asm["ptx"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="triton brings its assembler on Linux only")
def test_the_kernel_compiles_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    """The interpreter takes what no compiler would; and the products have to be the tensor cores' where there are."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    targets = ["75:ieee", "80:tf32x3", "90:tf32x3"]
    command = [sys.executable, "-W", "ignore", "-c", COMPILE, *targets]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-2000:]
    found = [line.split() for line in made.stdout.splitlines()]
    assert found == [[target, "True", str("tf32" in target)] for target in targets]


def test_a_kernel_that_cannot_be_compiled_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise NameError("constexpr is not defined")

    weight, bias, h, x = head_problem(20, 10, 1.0, 5)
    head = TritonHead(weight.to(DEVICE), bias.to(DEVICE))
    monkeypatch.setattr("boundcheck.evidence.fused_triton._log_probs", {(1,): broken})
    with pytest.raises(CannotCompute, match=r"could not run its kernel \(NameError\)"):
        head.log_prob(h.to(DEVICE), x.to(DEVICE))


def test_work_grows_with_rows() -> None:
    one, two = work(1000, 200, 784), work(2000, 200, 784)
    assert two.operations == 2 * one.operations
    assert 1000 * 4 * 200 < two.bytes - one.bytes < 1000 * 4 * 210
