"""Protocols against known answers and slow counting."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bauta import metrics
from bauta.benchmark import identification, protocols
from bauta.benchmark.embeddings import cosines
from bauta.benchmark.protocols import Cell
from bauta.errors import UsageError


def unit(values) -> np.ndarray:
    array = np.asarray(values, np.float32)
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


def people(count: int, images: int, *, noise: float = 0.5, seed: int = 0, width: int = 16):
    """(N, D) embeddings around a centre for each person, and the person of each."""
    random = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(count), images)
    centres = unit(random.normal(size=(count, width)))
    return unit(centres[subjects] + noise * unit(random.normal(size=(len(subjects), width)))), subjects.tolist()


def angle(degrees: float) -> np.ndarray:
    return unit([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("bauta.benchmark.embeddings._BLOCK", 100)


# Thresholds and verification


@pytest.mark.usefixtures("small_blocks")
def test_operating_points_are_those_of_all_pairs():
    embeddings, subjects = people(60, 3)
    code = np.array(subjects)
    scores = embeddings @ embeddings.T
    impostors = scores[np.triu(code[:, None] != code, 1)]
    points = protocols.operating_points(embeddings, subjects, fmrs=(1e-1, 1e-2))
    for point in points:
        assert point.impostor_pairs == len(impostors) == (180 * 180 - 60 * 9) // 2
        assert point.cosine == pytest.approx(metrics.threshold_at_fmr(impostors, point.fmr), abs=1e-6)
    with pytest.raises(UsageError, match=r"15930 impostor pairs .* 30000"):
        protocols.operating_points(embeddings, subjects, fmrs=(1e-3,))


@pytest.mark.usefixtures("small_blocks")
def test_operating_points_of_two_sides():
    embeddings, subjects = people(40, 3)
    code = np.array(subjects)
    first, second = np.arange(0, 120, 3), np.arange(1, 120, 3)
    (point,) = protocols.operating_points(embeddings, subjects, first=np.repeat(first, 2), second=second, fmrs=(0.05,))
    crossed = (embeddings[first] @ embeddings[second].T)[code[first, None] != code[second]]
    assert point.impostor_pairs == len(crossed) == 40 * 39
    assert point.cosine == pytest.approx(metrics.threshold_at_fmr(crossed, 0.05), abs=1e-6)
    # Sides that share an image are one set: each pair counts once.
    (point,) = protocols.operating_points(embeddings, subjects, first=first, second=first, fmrs=(0.05,))
    assert point.impostor_pairs == 40 * 39 // 2


def test_verification():
    scores = np.array([0.9, 0.8, 0.3, 0.2, 0.9, 0.1, 0.4, 0.3], np.float32)
    same = np.array([True, True, False, False] * 2)
    found = protocols.verification(
        scores,
        same,
        [0, 0, 0, 0, 1, 1, 1, 1],
        ["a", "b", "a", "b", "c", "d", "c", "d"],
        points=[protocols.OperatingPoint(1e-3, 0.5, 10**6)],
    )
    # The first fold's threshold lies between 0.4 and 0.9, the second's between 0.3 and 0.8.
    assert found.accuracy.mean == 7 / 8
    assert found.fold_error == pytest.approx(np.std([1, 3 / 4], ddof=1) / np.sqrt(2))
    assert (found.genuine_pairs, found.impostor_pairs) == (4, 4)
    assert found.rates[0].rate.mean == 3 / 4
    assert found.rates[0].rate.low < 3 / 4 < found.rates[0].rate.high


def test_true_accept_rate_at_a_false_match_rate():
    impostors = np.arange(3000) / 3000  # 30 lie at or above 0.99
    scores = np.concatenate([impostors, [0.98, 0.9896, 0.995, 1]])
    same = np.arange(3004) >= 3000
    (found,) = protocols.true_accept_rates(scores, same, range(3004), fmrs=[1e-2])
    assert 2969 / 3000 < found.point.cosine <= 2970 / 3000
    assert found.point.impostor_pairs == 3000
    assert found.rate.mean == 0.5


@pytest.mark.parametrize("count", [0, 29_999])
def test_too_few_impostors_are_refused(count):
    scores, same = np.zeros(count + 1), np.arange(count + 1) == 0
    with pytest.raises(
        UsageError, match=f"{count} impostor pairs say nothing about a rate of 0.001, which needs 30000"
    ):
        protocols.true_accept_rates(scores, same, range(count + 1), fmrs=[1e-3])


def test_thirty_expected_errors_are_enough():
    assert protocols.operating_point(np.random.default_rng(0).random(30_000), 1e-3).impostor_pairs == 30_000
    assert protocols.operating_point(np.random.default_rng(0).random(300_000), 1e-4).impostor_pairs == 300_000


def test_det_curve():
    random = np.random.default_rng(0)
    genuine, impostor = random.normal(2, 1, 500), np.round(random.normal(0, 1, 4000), 2)  # with ties
    curve = protocols.det_curve(genuine, impostor, points=50)
    assert len(curve.cosine) <= 51
    assert (curve.false_match[0], curve.false_match[-1]) == (0, 1)
    assert (np.diff(curve.false_match) >= 0).all()
    assert (np.diff(curve.false_non_match) <= 0).all()
    for limit, fmr, fnmr in zip(curve.cosine, curve.false_match, curve.false_non_match, strict=True):
        assert fmr == pytest.approx((impostor >= limit).mean())
        assert fnmr == pytest.approx((genuine < limit).mean())
    with pytest.raises(UsageError):
        protocols.det_curve([], impostor)


# Identification


@pytest.mark.usefixtures("small_blocks")
def test_search_is_exact_and_in_order():
    gallery, _ = people(50, 4)
    probes, _ = people(20, 1, seed=1)
    places, scores = identification.search(probes, gallery, 7)
    expected = np.argsort(-(probes @ gallery.T), axis=1)[:, :7]
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(probes @ gallery.T, expected, 1), atol=1e-6)
    with pytest.raises(UsageError):
        identification.search(probes, gallery, 201)


def test_search_of_a_large_gallery_is_exact():
    random = np.random.default_rng(0)
    gallery, probes = (unit(random.standard_normal((count, 16))) for count in (5_000, 40))
    places, _ = identification.search(probes, gallery, 5)
    np.testing.assert_array_equal(places, np.argsort(-(probes @ gallery.T), axis=1)[:, :5])


@pytest.mark.usefixtures("small_blocks")
def test_closed_set_equals_slow_counting():
    embeddings, subjects = people(40, 3, noise=1.5)
    code = np.array(subjects)
    probe = np.arange(0, 120, 3)
    enrolled = np.setdiff1d(np.arange(120), probe)
    found = identification.closed_set(
        embeddings[probe], code[probe].tolist(), embeddings[enrolled], code[enrolled].tolist(), ranks=(1, 5, 20)
    )
    ordered = code[enrolled][np.argsort(-(embeddings[probe] @ embeddings[enrolled].T), axis=1)]
    for rank, rate in found.rates.items():
        assert rate.mean == pytest.approx((ordered[:, :rank] == code[probe, None]).any(1).mean())
    assert 0 < found.rates[1].mean < found.rates[5].mean < found.rates[20].mean < 1
    assert (found.probes, found.gallery) == (40, 80)


def test_constant_embeddings_identify_nobody():
    same = unit(np.ones((6, 8)))
    assert identification.closed_set(same[:2], "ab", same, "abcdef").rates[5].mean == 0


def test_closed_set_needs_everybody():
    embeddings, _ = people(3, 1)
    with pytest.raises(UsageError, match="1 probes are of people who are not in the gallery"):
        identification.closed_set(embeddings[:2], "ax", embeddings, "abc")
    with pytest.raises(UsageError, match="2 embeddings have 3 subjects"):
        identification.closed_set(embeddings[:2], "abc", embeddings, "abc")


def missed(ranks, rank=1):
    """Share of probes that do not find their person among the top of the gallery (Rank-N-UT)."""
    return (ranks.person > rank).mean()


def test_untargeted_and_targeted_are_those_of_tip_im():
    # In degrees: the person's other image at 40, somebody at 10, a target at 20 and another at 90.
    clean = np.stack([angle(35), angle(40), angle(10)])
    protected = np.stack([angle(16), angle(40), angle(10)])
    found = identification.identification_ranks(
        clean, protected, "aab", [0], [1, 2], targets=np.stack([angle(20), angle(90)])
    )
    before, after = found[Cell.NEITHER], found[Cell.PROBE]
    assert [missed(before, rank) for rank in (1, 2, 3)] == [0, 0, 0]
    assert before.target.tolist() == [2]
    assert [missed(after, rank) for rank in (1, 2, 3)] == [1, 1, 0]
    assert after.target.tolist() == [1]


def test_a_protected_gallery_protects_the_person_searched_for():
    # Two people's images lie at 0 and 60; protection turns everything by 50 degrees.
    clean = np.stack([angle(0), angle(0), angle(60), angle(60)])
    protected = np.stack([angle(50), angle(50), angle(110), angle(110)])
    alone = identification.identification_ranks(clean, protected, "aabb", [0, 2], [1, 3])
    together = identification.identification_ranks(clean, protected, "aabb", [0, 2], [1, 3], everyone=True)

    def rates(found):
        return [missed(found[cell]) for cell in Cell]

    # Probe a at 50 is nearer to b at 60; probe b at 110 is nearer to b at 60 than to a at 0.
    # Gallery alone: a at 0 is nearer to a at 50 than to b at 60. Everybody: b at 60 is nearer to a at 50.
    assert rates(alone) == [0, 0.5, 0, 0]
    assert rates(together) == [0, 0.5, 0.5, 0]
    assert alone[Cell.PROBE].target is None


def test_equal_scores_count_against_the_protection():
    same = unit(np.ones((3, 4)))
    found = identification.identification_ranks(same, same, "aab", [0], [1, 2], targets=same[:1])
    assert missed(found[Cell.PROBE]) == 0
    assert found[Cell.PROBE].target.tolist() == [3]


def test_distractors_push_people_down_the_list():
    embeddings, subjects = people(30, 2, noise=1.5)
    probe, enrolled = np.arange(0, 60, 2), np.arange(1, 60, 2)
    few = identification.identification_ranks(embeddings, embeddings, subjects, probe, enrolled)
    many = identification.identification_ranks(
        embeddings, embeddings, subjects, probe, enrolled, distractors=people(2000, 1, seed=5)[0]
    )
    assert missed(many[Cell.NEITHER]) > missed(few[Cell.NEITHER])


def test_identification_refuses_what_does_not_fit():
    embeddings, subjects = people(3, 2)
    for arguments, words in (
        (([0], [0, 1]), "in the gallery"),
        (([0], [2, 3]), "not in the gallery"),
    ):
        with pytest.raises(UsageError, match=words):
            identification.identification_ranks(embeddings, embeddings, subjects, *arguments)
    with pytest.raises(UsageError, match="another recogniser"):
        identification.identification_ranks(embeddings, embeddings, subjects, [0], [1], targets=unit(np.eye(4)))
    with pytest.raises(UsageError, match="do not go together"):
        identification.identification_ranks(embeddings, embeddings[1:], subjects, [0], [1])


def test_a_hundred_thousand_distractors_are_a_matter_of_seconds():
    random = np.random.default_rng(0)
    gallery = unit(random.standard_normal((100_000, 64), dtype=np.float32))
    probes = gallery[:100]
    began = time.process_time()
    found = identification.closed_set(probes, range(100), gallery, range(100_000))
    assert time.process_time() - began < 10
    assert found.rates[1].mean == 1


# Input


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((2, 3)), "norm 0"),
        (np.full((2, 3), np.nan), "norm nan"),
        (np.eye(3)[0], "not embeddings"),
        (np.eye(3, dtype=np.int64), "not embeddings"),
        (np.zeros((0, 3)), "not embeddings"),
    ],
)
def test_what_are_no_embeddings(values, words):
    with pytest.raises(UsageError, match=words):
        cosines(values, values)
