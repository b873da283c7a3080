"""The kernel for GPUs: in triton's interpreter where there is no GPU, on the GPU where there is one."""

from __future__ import annotations

import os
import sys

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("triton was imported before, to compile; run this file on its own", allow_module_level=True)
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, on the next line
pytest.importorskip("triton", reason="the extra 'gpu' is not installed")

from test_fused import head_problem, reference  # noqa: E402

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


def test_work_grows_with_rows() -> None:
    one, two = work(1000, 200, 784), work(2000, 200, 784)
    assert two.operations == 2 * one.operations
    assert 1000 * 4 * 200 < two.bytes - one.bytes < 1000 * 4 * 210
