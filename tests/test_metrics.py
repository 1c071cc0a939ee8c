"""Metrics against known answers and another library."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bauta import metrics
from bauta.errors import UsageError


def noisy(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    image = random.random((40, 50, 3), dtype=np.float32)
    return image, (image + random.normal(0, 0.05, image.shape)).clip(0, 1).astype(np.float32)


def test_psnr_and_ssim_equal_scikit_image():
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    a, b = noisy()
    assert metrics.psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1), abs=1e-4)
    # scikit-image averages over the inner part of reflected windows, as valid windows do.
    expected = structural_similarity(
        a, b, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert metrics.ssim(a, b) == pytest.approx(expected, abs=2e-3)


def test_psnr_of_equal_and_weighted_images():
    a, b = noisy()
    assert metrics.psnr(a, a) == math.inf
    weight = np.zeros((40, 50, 1))
    weight[:10] = 1
    assert metrics.psnr(a, b, weight) == pytest.approx(metrics.psnr(a[:10], b[:10]))


def test_linf_is_in_255ths():
    assert metrics.linf(np.zeros((2, 2)), np.full((2, 2), 4 / 255)) == pytest.approx(4)


def test_ssim_needs_room():
    with pytest.raises(UsageError):
        metrics.ssim(np.zeros((8, 8, 3)), np.zeros((8, 8, 3)))


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=200),
    st.sampled_from([0.5, 0.1, 0.01, 0.001]),
)
def test_threshold_keeps_the_false_match_rate(scores, fmr):
    array = np.array(scores, dtype=np.float32)
    threshold = metrics.threshold_at_fmr(array, fmr)
    assert (array >= np.float32(threshold)).mean() <= fmr
    lower = np.nextafter(np.float32(threshold), np.float32(-np.inf))
    assert (array >= lower).mean() > fmr or lower < array.min()


@pytest.mark.parametrize(("scores", "fmr"), [([], 0.1), ([0.1], 0.0), ([0.1], 1.0)])
def test_threshold_refuses_nonsense(scores, fmr):
    with pytest.raises(UsageError):
        metrics.threshold_at_fmr(np.array(scores), fmr)


def test_bootstrap_resamples_subjects():
    values = np.array([1.0, 1, 1, 1, 0, 0, 0, 0])
    by_subject = metrics.bootstrap_by_subject(values, ["a"] * 4 + ["b"] * 4)
    by_value = metrics.bootstrap_by_subject(values, range(8))
    assert by_subject.mean == by_value.mean == 0.5
    assert (by_subject.low, by_subject.high) == (0, 1)
    assert by_value.low > 0
    with_gap = metrics.bootstrap_by_subject(np.array([1.0, np.nan]), ["a", "b"])
    assert (with_gap.low, with_gap.mean, with_gap.high) == (1, 1, 1)


def test_bootstrap_of_columns_is_the_mean_of_their_means():
    values = np.array([[1.0, 0], [1, np.nan], [0, np.nan]])
    assert metrics.bootstrap_by_subject(values, ["a", "b", "c"]).mean == pytest.approx((2 / 3 + 0) / 2)


@pytest.mark.parametrize(("values", "subjects"), [([], []), ([1.0], ["a", "b"]), ([math.nan], ["a"])])
def test_bootstrap_refuses_nonsense(values, subjects):
    with pytest.raises(UsageError):
        metrics.bootstrap_by_subject(np.array(values), subjects)
