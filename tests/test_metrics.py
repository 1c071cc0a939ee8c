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


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_of_a_large_image_is_made_in_bands_and_is_the_same(channels, monkeypatch):
    random = np.random.default_rng(0)
    a = random.random((75, 40, channels), dtype=np.float32)
    b = (a + random.normal(0, np.linspace(0, 0.3, 75)[:, None, None], a.shape)).clip(0, 1).astype(np.float32)
    whole = metrics.ssim(a, b)
    for rows in (16, 65, 64):  # the last band is short, all there is, and a single row
        monkeypatch.setattr(metrics, "_BAND", rows)
        assert metrics.ssim(a, b) == pytest.approx(whole, abs=1e-6)


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


def test_ms_ssim_equals_its_definition():
    from scipy.ndimage import gaussian_filter1d

    random = np.random.default_rng(0)
    # A ramp with noise, of sides that halve four times without a rest.
    ramp = np.linspace(0.2, 0.7, 192)[None, :, None] * np.ones((176, 1, 3))
    a = (ramp + random.normal(0, 0.05, ramp.shape)).astype(np.float32)
    b = (ramp + random.normal(0, 0.05, ramp.shape)).astype(np.float32)

    def window(image):
        for axis in (0, 1):
            image = gaussian_filter1d(image, 1.5, axis=axis, radius=5)
        return image[5:-5, 5:-5]

    first, second, product = a.astype(np.float64), b.astype(np.float64), 1.0
    for level, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        mean_1, mean_2 = window(first), window(second)
        variance = window(first**2) - mean_1**2 + window(second**2) - mean_2**2
        contrast = (2 * (window(first * second) - mean_1 * mean_2) + 0.03**2) / (variance + 0.03**2)
        luminance = (2 * mean_1 * mean_2 + 0.01**2) / (mean_1**2 + mean_2**2 + 0.01**2)
        term = contrast * luminance if level == 4 else contrast
        product = product * term.mean((0, 1)) ** weight
        if level < 4:
            first, second = (image.reshape(len(image) // 2, 2, -1, 2, 3).mean((1, 3)) for image in (first, second))
    assert metrics.ms_ssim(a, b) == pytest.approx(product.mean(), abs=1e-4)
    assert metrics.ms_ssim(a, a) == pytest.approx(1)
    assert 0.1 < product.mean() < 0.99
    with pytest.raises(UsageError, match="161"):
        metrics.ms_ssim(a[:160], b[:160])


def test_cross_validated_accuracy_takes_each_threshold_from_the_other_folds():
    # Fold 0 would be split by 0.5, fold 1 by 0.1: judged by each other's threshold, half of the pairs go wrong.
    scores = np.array([0.9, 0.6, 0.4, 0.3, 0.3, 0.2, 0.0, -0.2])
    same = np.array([True, True, False, False] * 2)
    folds = np.array([0] * 4 + [1] * 4)
    assert metrics.cross_validated_matches(scores, same, folds).tolist() == [True] * 4 + [False] * 4
    mean, error = metrics.cross_validated_accuracy(scores, same, folds)
    assert mean == 0.5
    assert error == 0
    # Every other pair: thresholds 0.65 and 0.45 are right about two and three of four.
    mean, error = metrics.cross_validated_accuracy(scores, same, np.arange(8) % 2)
    assert mean == 0.625
    assert error == pytest.approx(np.std([0.5, 0.75], ddof=1) / np.sqrt(2))


def test_no_threshold_parts_equal_scores():
    # Accepting one of two at 0.5 and not the other would be right about three of four in fold 1, and then about
    # everything in fold 0 by the order of the file; between 0.5 and 0.9 is the best there is.
    scores = np.array([0.5, 0.5, 0.9, 0.5, 0.5, 0.1])
    same = np.array([True, False, True, True, False, False])
    folds = np.array([0, 0, 1, 1, 1, 1])
    assert metrics.cross_validated_matches(scores, same, folds).tolist() == [False] * 6
    assert metrics.cross_validated_accuracy(scores, same, folds) == (0.5, 0)


def test_cross_validation_may_accept_all_or_none():
    scores, folds = np.array([0.1, 0.2, 0.3, 0.0]), np.array([0, 0, 1, 1])
    all_genuine = metrics.cross_validated_matches(scores, np.ones(4, bool), folds)
    assert all_genuine.tolist() == [True, True, True, False]  # what is at least the lowest of the other fold
    assert not metrics.cross_validated_matches(scores, np.zeros(4, bool), folds).any()


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.4]), st.booleans()), min_size=4, max_size=40))
def test_cross_validation_finds_the_best_threshold(pairs):
    scores, same = np.array([score for score, _ in pairs]), np.array([label for _, label in pairs])
    folds = np.arange(len(pairs)) % 2
    matches = metrics.cross_validated_matches(scores, same, folds)
    for fold in (0, 1):
        # Of the thresholds that do best on the other fold, the highest.
        limits = [0.45, 0.35, 0.25, 0.15, 0.05]
        other = scores[folds != fold]
        right = [int(((other >= limit) == same[folds != fold]).sum()) for limit in limits]
        best = limits[right.index(max(right))]
        accepted = matches[folds == fold]
        inside = scores[folds == fold]
        low = other[other < best].max(initial=-np.inf)
        high = other[other > best].min(initial=np.inf)
        assert accepted[inside >= high].all()
        assert not accepted[inside <= low].any()


@pytest.mark.parametrize(
    ("scores", "same", "folds"),
    [([0.1, 0.2], [True, False], [0, 0]), ([0.1], [True, False], [0, 1]), ([[0.1, 0.2]], [[True, False]], [[0, 1]])],
)
def test_cross_validation_refuses_nonsense(scores, same, folds):
    with pytest.raises(UsageError):
        metrics.cross_validated_accuracy(np.array(scores), np.array(same), np.array(folds))


def test_linkability_of_known_histograms():
    # Two bins: mated 3 : 1, non-mated 1 : 3. Where LR = 3, D = 2 * 3 / 4 - 1 = 1 / 2; it weighs 3 / 4.
    mated, other = np.array([1.0, 1, 1, 0]), np.array([0.0, 0, 0, 1])
    assert metrics.system_linkability(mated, other, bins=2) == pytest.approx(3 / 8)
    assert metrics.maximal_linkability(mated, other, bins=2) == pytest.approx(np.log2(1.5))
    # A prior of a third makes the likelier bin even.
    assert metrics.system_linkability(mated, other, bins=2, prior=1 / 3) == pytest.approx(0)
    apart = metrics.system_linkability(np.full(10, 2.0), np.zeros(10), bins=5)
    assert apart == 1
    assert metrics.maximal_linkability(np.full(10, 2.0), np.zeros(10)) == 1
    assert metrics.system_linkability(np.ones(20), np.ones(20)) == 0
    assert metrics.maximal_linkability(np.ones(20), np.ones(20)) == 0


@pytest.mark.parametrize(("separation", "system"), [(0, 0.0), (1, 0.293), (6, 0.997)])
def test_linkability_of_normal_scores_is_its_integral(separation, system):
    random = np.random.default_rng(1)
    mated, other = random.normal(separation, 1, 60_000), random.normal(0, 1, 60_000)
    # The integrals of tanh(log LR / 2) where positive, and of the larger density: 2 Phi(separation / 2).
    assert metrics.system_linkability(mated, other, bins=30) == pytest.approx(system, abs=0.01)
    larger = 1 + math.erf(separation / 2 / math.sqrt(2))
    assert metrics.maximal_linkability(mated, other) == pytest.approx(math.log2(larger), abs=0.02)


def test_few_scores_look_linkable_and_their_shuffles_say_so():
    random = np.random.default_rng(0)
    mated, other = random.normal(size=1000), random.normal(size=1000)
    null = metrics.null_linkability(mated, other)
    assert null.mean == pytest.approx(0.08, abs=0.02)  # the value known for a thousand scores in a hundred bins
    assert null.low < metrics.system_linkability(mated, other) < null.high
    assert null == metrics.null_linkability(mated, other)
    assert metrics.null_linkability(mated + 1, other).high < metrics.system_linkability(mated + 1, other)


@pytest.mark.parametrize(
    ("mated", "other"), [([], [1.0]), ([1.0] * 20, []), ([1.0] * 9, [1.0]), ([math.nan] * 20, [1.0])]
)
def test_linkability_refuses_nonsense(mated, other):
    with pytest.raises(UsageError):
        metrics.system_linkability(np.array(mated), np.array(other))


def test_flip_of_the_authors_pictures_of_one_colour() -> None:
    """Their own package: 0 for equal images, 1 at most, and nearly that for the extreme pair of green and blue."""
    colours = {"green": (0, 1, 0), "blue": (0, 0, 1), "grey": (0.5, 0.5, 0.5)}
    green, blue, grey = (np.full((32, 32, 3), colour, np.float32) for colour in colours.values())
    assert metrics.flip(grey, grey) == 0
    assert 0.9 < metrics.flip(green, blue) <= 1
    assert metrics.flip(grey, grey + np.float32(0.01)) < metrics.flip(grey, grey + np.float32(0.05)) < 0.3
    with pytest.raises(UsageError, match="one size"):
        metrics.flip(grey, grey[:16])


def test_the_frechet_distance_of_gaussians() -> None:
    """Of N(m, S) and N(n, T): |m - n|^2 + tr(S + T - 2 (S T)^1/2); for diagonal S and T in closed form."""
    random = np.random.default_rng(0)
    white = random.standard_normal((500, 3))
    white -= white.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white, rowvar=False))).T  # exactly of unit covariance
    first, second = white * [1, 2, 3], white * [2, 2, 5] + [1, 0, -2]
    assert metrics.frechet_distance(first, second) == pytest.approx(1 + 4 + (1 - 2) ** 2 + (3 - 5) ** 2)
    assert metrics.frechet_distance(first, first) == pytest.approx(0, abs=1e-9)
    turn = np.linalg.qr(random.standard_normal((3, 3)))[0]
    assert metrics.frechet_distance(first @ turn, second @ turn) == pytest.approx(10)
    with pytest.raises(UsageError, match="no Fréchet distance"):
        metrics.frechet_distance(first, second[:, :2])


def test_focal_diversity_of_known_failures() -> None:
    apart, alike = np.eye(3, dtype=bool), np.ones((3, 4), dtype=bool)
    assert metrics.focal_diversity(apart) == 1
    assert metrics.focal_diversity(alike) == 0
    # The first fails alone and with the second, the second with the first, the third never:
    # p(1) = (1/3 + 2/3) / 2 and p(2) = (0 + 1/3) / 2 for the first; 2/3 and 1/3 for the second.
    mixed = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)
    assert metrics.focal_diversity(mixed) == pytest.approx(((1 - 1 / 3) + (1 - 1 / 2)) / 2)
    for useless in (np.zeros((3, 4), dtype=bool), np.ones((1, 4), dtype=bool), np.ones(4, dtype=bool)):
        with pytest.raises(UsageError, match="two members"):
            metrics.focal_diversity(useless)
