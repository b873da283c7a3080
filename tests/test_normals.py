"""Box and Muller's normals: their law, their independence, their place in a stream, their farthest values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

torch = pytest.importorskip("torch")

from boundcheck.evidence.normals import box_muller, words_of  # noqa: E402


def words(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.Philox(key=seed).random_raw((rows, words_of(width)))


@pytest.mark.parametrize("width", [1, 2, 7, 50])
def test_they_are_standard_normal_and_independent(width: int) -> None:
    """False alarm below 1e-7 for each of the tests, were the words drawn anew."""
    rows = 200_000 // width
    normals = box_muller(words(rows, width), width).double().numpy()
    assert normals.shape == (rows, width)
    assert stats.kstest(normals.ravel(), "norm").pvalue > 1e-7
    assert stats.kstest(normals.ravel() ** 2, stats.chi2(1).cdf).pvalue > 1e-7
    if width > 1:
        for power in (1, 2):
            correlations = np.corrcoef(normals.T**power) - np.eye(width)
            assert np.abs(correlations).max() < 6.5 / np.sqrt(rows)
        squares = (normals[:, : width // 2 * 2] ** 2).sum(1)
        assert stats.kstest(squares, stats.chi2(width // 2 * 2).cdf).pvalue > 1e-7


def test_they_are_box_and_mullers_formula() -> None:
    given = words(100, 6)
    low, high = (given & 0xFFFFFFFF).astype(np.uint32).view(np.int32), (given >> 32).astype(np.uint32).view(np.int32)
    radius = np.sqrt(-2 * np.log((np.abs(low.astype(float)) + 0.5) * 2.0**-31))
    angle = high.astype(float) * 2.0**-31 * np.pi
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)
    np.testing.assert_allclose(box_muller(given, 6), expected, rtol=0, atol=5e-6)


def test_each_row_is_a_function_of_its_own_words() -> None:
    given = words(40, 5)
    assert torch.equal(box_muller(given, 5)[7:9], box_muller(given[7:9], 5))


def test_no_word_gives_an_infinity() -> None:
    extremes = np.array([[0], [2**64 - 1], [2**31], [2**63], [2**31 - 1], [2**32 - 1]], dtype=np.uint64)
    normals = box_muller(extremes, 2)
    assert bool(normals.isfinite().all())
    assert 6.6 < float(normals.norm(dim=1).max()) < 6.7
