"""Attackers on keys: the old permutation and rotation fall to them, and sealed records do not."""

from __future__ import annotations

import secrets

import pytest
import torch
from torch import Tensor

from bauta.attacks.keys import (
    Positions,
    Recovered,
    from_pairs,
    from_store,
    likeness_of_invariants,
    procrustes,
)
from bauta.benchmark.stores.sealed import sealed_numbers
from bauta.errors import UsageError
from bauta.templates.advface.keys import turn

KEY = bytes(range(32))
COUNT = 400


def rows(number: int, seed: int, *, people: int = 0, photo: int = 0) -> Tensor:
    """(number, COUNT) features of a made-up recogniser; with `people`, photos of these."""
    network = torch.Generator().manual_seed(0)
    mix = torch.randn(40, COUNT, generator=network) * torch.rand(COUNT, generator=network)
    mean = 0.3 * torch.randn(COUNT, generator=network)
    generator = torch.Generator().manual_seed(seed)
    persons = torch.randn(number, 40, generator=generator)
    if people:
        photos = torch.Generator().manual_seed(1000 + photo)
        persons = torch.randn(number, 40, generator=torch.Generator().manual_seed(people)) + 0.15 * torch.randn(
            number, 40, generator=photos
        )
        generator = photos
    return torch.tanh(0.3 * persons @ mix) + mean + 0.1 * torch.randn(number, COUNT, generator=generator)


def the_key(key: bytes = KEY) -> Positions:
    turned = turn(torch.arange(1.0, COUNT + 1)[None], key, rotated=False)[0]
    return Positions(turned.abs().long() - 1, turned.sign())


def test_the_true_map_undoes_what_the_key_does() -> None:
    plain = rows(5, 1)
    assert torch.equal(the_key().undo(turn(plain, KEY, rotated=False)), plain)
    assert float(the_key().right(the_key()).mean()) == 1
    assert float(the_key().right(the_key(secrets.token_bytes(32))).mean()) < 0.05


@pytest.mark.parametrize(("pairs", "least"), [(1, 0.5), (2, 0.99), (10, 1.0), (100, 1.0)])
def test_known_photos_give_the_permutation_away(pairs: int, least: float) -> None:
    plain = rows(pairs, 1)
    stored = turn(plain, KEY, rotated=False).half()
    assert float(from_pairs(plain, stored).right(the_key()).mean()) >= least


def test_photos_that_are_a_little_different_need_a_few_more() -> None:
    enrolled, other = (rows(100, 0, people=5, photo=photo) for photo in (1, 2))
    stored = turn(enrolled, KEY, rotated=False)
    right = [float(from_pairs(other[:count], stored[:count]).right(the_key()).mean()) for count in (1, 10, 100)]
    assert right[0] < 0.1
    assert right[1] < right[2]
    assert right[2] > 0.9


def test_a_store_alone_gives_the_permutation_away() -> None:
    stored, own = turn(rows(1000, 1), KEY, rotated=False), rows(1500, 2)
    assert 0.05 < float(from_store(own, stored, rounds=0).right(the_key()).mean()) < 0.9
    assert float(from_store(own, stored, anchors=200).right(the_key()).mean()) > 0.95


def test_known_photos_give_the_rotation_away() -> None:
    plain, stored, unseen = rows(500, 1), turn(rows(500, 1), KEY, rotated=True), rows(20, 2)
    turned = turn(unseen, KEY, rotated=True)
    few, many = (
        torch.cosine_similarity(procrustes(plain[:count], stored[:count]).undo(turned), unseen).mean()
        for count in (2, 500)
    )
    assert float(many) > 0.999
    assert float(few) < 0.5


def test_sealed_records_give_nothing_away() -> None:
    """The attackers that succeed above, on the same rows."""
    plain, own = rows(1000, 1), rows(1500, 2)
    sealed = sealed_numbers(plain, KEY)

    def opened(found: Recovered) -> float:
        """Of rows that the attacker had no pairs of: what he learned by heart opens nothing."""
        unseen = rows(1100, 3)[1000:]
        turned = found.undo(sealed_numbers(rows(1100, 3), KEY)[1000:])
        return abs(float(torch.cosine_similarity(turned - turned.mean(0), unseen - unseen.mean(0)).mean()))

    for found in (
        from_pairs(plain[:1], sealed[:1]),
        from_pairs(plain[:100], sealed[:100]),
        from_store(own, sealed, anchors=200),
    ):
        assert opened(found) < 0.1
    assert opened(procrustes(plain[:500], sealed[:500])) < 0.1


def test_sorted_magnitudes_link_rows_under_any_permutation_and_no_sealed_ones() -> None:
    first, second = (rows(60, 0, people=7, photo=photo) for photo in (1, 2))
    store = turn(first, KEY, rotated=False)

    def found(values: Tensor, among: Tensor) -> float:
        nearest = likeness_of_invariants(values, among).argmax(1)
        return float((nearest == torch.arange(len(values))).float().mean())

    assert found(turn(first, secrets.token_bytes(32), rotated=False), store) == 1
    assert found(first, store) == 1  # a candidate photo needs no key
    assert found(second, store) > 0.2  # 1 / 60 by chance
    assert found(first, sealed_numbers(first, KEY)) < 0.12
    assert found(sealed_numbers(first, secrets.token_bytes(32)), sealed_numbers(first, KEY)) < 0.12


def test_ciphertext_read_as_numbers_looks_like_noise_and_depends_on_the_key() -> None:
    for values in (rows(50, 1), rows(50, 1).half()):
        sealed = sealed_numbers(values, KEY)
        assert (sealed.shape, sealed.dtype) == (values.shape, values.dtype)
        assert abs(float(sealed.float().mean())) < 0.03
        assert float(sealed.float().std()) == pytest.approx(1, abs=0.03)
        assert torch.equal(sealed, sealed_numbers(values, KEY))
        assert not torch.equal(sealed, sealed_numbers(values, KEY[::-1]))
    same = sealed_numbers(rows(1, 1).expand(2, -1), KEY)  # equal faces, unequal records
    assert abs(float(torch.cosine_similarity(same[:1], same[1:]))) < 0.3


def test_what_does_not_go_together_is_refused() -> None:
    plain = rows(20, 1)
    for attack in (from_pairs, procrustes):
        with pytest.raises(UsageError, match="make no pairs"):
            attack(plain, plain[:5])
        with pytest.raises(UsageError, match="make no pairs"):
            attack(plain[:0], plain[:0])
    with pytest.raises(UsageError, match="tell of no key"):
        from_store(plain, plain[:5])
    with pytest.raises(UsageError, match="tell of no key"):
        from_store(plain, plain[:, :5])
