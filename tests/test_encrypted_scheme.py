"""Encrypted matching: parameters, the exact kernel, keys and galleries."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bauta.encrypted import masking
from bauta.encrypted.encoded import PlainGallery, SealedGallery, seal_change, seal_groups
from bauta.encrypted.kernel import accumulate, halved, joined, scaled
from bauta.encrypted.packing import Layout, choose_split
from bauta.encrypted.parameters import DEGREE, MODULUS, PLAIN, PRIMES, SPECIAL_PRIME, require_secure
from bauta.encrypted.quantisation import quantise, quantise_threshold, require_unit
from bauta.encrypted.scheme import PublicKey, SecretKey, seal
from bauta.encrypted.transform import reduce, transforms
from bauta.encrypted.workers import ShardedGallery
from bauta.errors import InternalError, NumericalFailure, UsageError
from encrypted_parties import faces, keys, plain_scores, scores, sealed_probes


def test_parameters_below_128_bits_are_refused() -> None:
    require_secure(DEGREE, (*PRIMES, SPECIAL_PRIME), 21)
    for degree, primes, bits in (
        (2048, PRIMES + (SPECIAL_PRIME,), 21),
        (4096, (*PRIMES, SPECIAL_PRIME, SPECIAL_PRIME), 21),
        (4096, PRIMES, 8),
        (100, PRIMES, 21),
    ):
        with pytest.raises(UsageError, match="128 bits"):
            require_secure(degree, primes, bits)


@given(st.integers(-(2**50) + 1, 2**50 - 1))
def test_reduction_is_exact_to_its_bound(value: int) -> None:
    for prime in PRIMES:
        for one in (value, value - value % prime, value - value % prime - 1):
            if abs(one) < 2**50:
                assert int(reduce(np.array([float(one)]), prime)[0]) == one % prime


def test_the_transform_multiplies_polynomials() -> None:
    random = np.random.default_rng(0)
    for each in transforms():
        one, other = (random.integers(0, each.prime, (DEGREE, 2)) for _ in range(2))
        slots = [each.forward(part.astype(np.float64)) for part in (one, other)]
        exact = slots[0].astype(np.int64) * slots[1].astype(np.int64) % each.prime
        made = each.inverse(exact.astype(np.float64))
        for place in (0, 63, 64, 4095):
            wrapped = np.concatenate([other[place::-1, 1], each.prime - other[:place:-1, 1]]).astype(object)
            assert int(made[place, 1]) == int((one[:, 1].astype(object) * wrapped).sum()) % each.prime
        for step in (2, 64, 512):
            assert (each.inverse(slots[0], step) == one[step - 1 :: step]).all()


def test_sums_are_exact_where_every_residue_is_the_greatest() -> None:
    for prime in PRIMES:
        stored = np.full((2, 3, 512), prime - 1, np.uint32)
        made = accumulate(stored, halved(np.full((2, 512, 1), prime - 1, np.uint32)), prime)
        assert (made == 512).all()  # (-1)(-1) 512 times


def test_shares_are_rounded_exactly() -> None:
    values = [0, 1, MODULUS - 1, MODULUS // 2, MODULUS // (2 * PLAIN), MODULUS // (2 * PLAIN) + 1, 123456789012345]
    residues = np.array([[value % prime for value in values] for prime in PRIMES], np.uint32)
    assert joined(residues).tolist() == values
    assert scaled(joined(residues)).tolist() == [(2 * PLAIN * v + MODULUS) // (2 * MODULUS) % PLAIN for v in values]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 1024), st.integers(0, 9), st.integers(0, 2**31))
def test_packing_puts_scores_where_they_are_read(dimension: int, power: int, seed: int) -> None:
    try:
        layout = Layout(dimension, 1 << power)
    except UsageError:
        assert 1 << power > 1 << (dimension - 1).bit_length()
        return
    random = np.random.default_rng(seed)
    group = random.integers(-512, 513, (min(layout.group, 20), dimension))
    packed = layout.pack(group)
    assert (layout.unpack(packed)[: len(group)] == group).all()
    probe = random.integers(-512, 513, dimension)
    pieces = layout.probe(probe)[: layout.width]
    runs = packed.reshape(layout.group, layout.width, layout.split)
    assert (np.einsum("gws,ws->g", runs, pieces[::-1])[: len(group)] == group @ probe).all()


def test_the_split_grows_with_the_gallery_and_falls_with_a_slow_uplink() -> None:
    assert choose_split(1_000_000, 512) > choose_split(10_000, 512) > choose_split(100, 512) == 1
    assert choose_split(1_000_000, 512, uplink=20) < choose_split(1_000_000, 512, uplink=1)
    large = Layout(512, choose_split(1_000_000, 512))
    assert large.upload() <= 9e6
    assert large.download(1_000_000) <= 60e6


def test_probes_that_are_not_embeddings_are_refused() -> None:
    with pytest.raises(NumericalFailure):
        quantise([[np.nan, 1.0]])
    for wrong in ([[3.0, 4.0]], [[0.0, 0.0]], [1.0, 0.0], np.ones((1, 2000)) / 44.7, [["a", "b"]]):
        with pytest.raises(UsageError):
            quantise(wrong)
    for threshold in (0.0, -0.3, 1.1, float("nan")):
        with pytest.raises(UsageError):
            quantise_threshold(threshold)
    with pytest.raises(UsageError):
        require_unit((quantise(faces(1)) * 2).astype(np.int16))


def test_quantising_changes_cosines_little() -> None:
    one, other = faces(500), faces(500, seed=1)
    whole = plain_scores(quantise(one), quantise(other)) / 512**2
    assert np.abs(whole - one @ other.T).max() < 0.01


# Against SEAL


def seal_decrypts(first: Any, second: Any, folder: Path) -> list[int]:
    """Plaintext coefficients by SEAL, from a ciphertext (primes, 4096) each, in coefficients."""
    api, context = seal()
    body = np.stack([first, second]).astype("<u8").tobytes()

    def headed(content: bytes) -> bytes:
        return keys()[0].secret.blob[:5] + struct.pack("<BHQ", 0, 0, 16 + len(content)) + content  # its version

    array = headed(struct.pack("<Q", 4 * DEGREE) + body)
    fields = struct.pack("<4QBQQQdQ", *context.first_parms_id(), 0, 2, DEGREE, 2, 1.0, 1)
    path = folder / "ciphertext"
    path.write_bytes(headed(fields + array))
    loaded, plain, key = api.Ciphertext(), api.Plaintext(), api.SecretKey()
    loaded.load(context, str(path))
    path.write_bytes(keys()[0].secret.blob)
    key.load(context, str(path))
    api.Decryptor(context, key).decrypt(loaded, plain)
    return [plain.data(place) if place < plain.coeff_count() else 0 for place in range(DEGREE)]


def test_seal_decrypts_what_the_kernel_answers_as_we_do(tmp_path: Path) -> None:
    layout, secret = Layout(512, 8), keys()[0].secret
    gallery = PlainGallery(layout)
    gallery.add(quantise(faces(layout.group)))
    (answer,) = gallery.answer(sealed_probes(gallery, quantise(faces(1, seed=4))), keys()[1].public)
    ours = secret.decrypt(answer.first[0].transpose(1, 2, 0), answer.second[0].transpose(1, 2, 0), layout.width)
    first = np.zeros((2, DEGREE), np.int64)
    first[:, layout.width - 1 :: layout.width] = answer.first[0, 0]
    second = [each.inverse(answer.second[0, 0, place][:, None] * 1.0)[:, 0] for place, each in enumerate(transforms())]
    theirs = seal_decrypts(first, np.stack(second), tmp_path)
    assert theirs[layout.width - 1 :: layout.width] == ours[:, 0].tolist()


def test_a_secret_key_comes_back_from_its_bytes_and_a_damaged_one_is_refused() -> None:
    secret = keys()[0].secret
    polynomial = np.arange(DEGREE, dtype=np.float64)[:, None] % 1000
    sealed = SecretKey(secret.blob).encrypt(polynomial)[:, :, 0]
    first = np.stack([each.inverse(sealed[p, :, :1] * 1.0) for p, each in enumerate(transforms())]).astype(np.uint32)
    assert (secret.decrypt(first, sealed[:, :, 1:], 1) == polynomial).all()
    assert (SecretKey.generate().decrypt(first, sealed[:, :, 1:], 1) != polynomial).mean() > 0.99
    for blob in (b"", secret.blob[:-100], b"x" * len(secret.blob)):
        with pytest.raises(UsageError):
            SecretKey(blob).encrypt(polynomial)


def test_randomness_has_the_distributions_of_the_scheme() -> None:
    ternary, errors = masking.random_ternary(8), masking.random_errors(8)
    assert {-1.0, 0.0, 1.0} == set(np.unique(ternary))
    assert abs(ternary.mean()) < 0.03
    assert abs(errors.std() - 3.24) < 0.1
    residues = masking.random_residues((4096,))
    assert all((part < prime).all() for part, prime in zip(residues, PRIMES, strict=True))
    assert np.abs(residues.mean(1) / PRIMES - 0.5).max() < 0.03


def test_the_random_half_of_a_public_key_is_not_chosen() -> None:
    made = PublicKey.from_bytes(bytes(PublicKey.SIZE))  # all zero: b, and the seed
    assert np.abs(made.random.mean(1) / PRIMES - 0.5).max() < 0.03
    assert PublicKey.from_bytes(keys()[1].public.to_bytes()).to_bytes() == keys()[1].public.to_bytes()
    for wrong in (b"", bytes(PublicKey.SIZE - 1), b"\xff" * PublicKey.SIZE):
        with pytest.raises(UsageError):
            PublicKey.from_bytes(wrong)


# Galleries


def require_equal(got: Any, wanted: Any) -> None:
    """Shares may be wrong by one, and hardly ever are."""
    assert np.abs(got - wanted).max() <= 1
    assert (got != wanted).mean() < 0.01


@pytest.mark.parametrize(
    ("dimension", "split", "people"), [(512, 1, 20), (512, 16, 300), (128, 32, 2000), (100, 4, 70)]
)
def test_scores_of_a_plain_gallery_are_those_of_numpy(dimension: int, split: int, people: int) -> None:
    gallery = PlainGallery(Layout(dimension, split))
    enrolled, probes = quantise(faces(people, dimension)), quantise(faces(2, dimension, seed=1))
    assert gallery.add(enrolled) == list(range(people))
    got = scores(gallery.answer(sealed_probes(gallery, probes), keys()[1].public), gallery.layout.width, people)
    require_equal(got, plain_scores(probes, enrolled))


def test_people_are_added_renewed_and_erased_without_encoding_anew() -> None:
    gallery = PlainGallery(Layout(512, 4))
    enrolled, others = quantise(faces(50)), quantise(faces(40, seed=7))
    gallery.add(enrolled)
    gallery.erase(3)
    assert not gallery.read(3).any()
    gallery.renew(8, others[0])
    assert gallery.add(others[1:3]) == [3, 50]
    wanted = np.concatenate([enrolled, others[2:3]])
    wanted[8], wanted[3] = others[0], others[1]
    assert all((gallery.read(place) == one).all() for place, one in enumerate(wanted))
    places = gallery.add(others[3:])  # past the last group: new ones, the others untouched
    wanted = np.concatenate([wanted, others[3:]])
    assert places == list(range(51, 88))
    assert gallery.people == 88
    got = scores(gallery.answer(sealed_probes(gallery, others[:1]), keys()[1].public), gallery.layout.width, 88)
    require_equal(got, plain_scores(others[:1], wanted))
    for wrong in (-1, 95, 10_000):
        with pytest.raises(UsageError, match="vacant"):
            gallery.erase(wrong)
    with pytest.raises(UsageError, match="do not go"):
        gallery.add(quantise(faces(1, 128)))


def test_a_sealed_gallery_is_searched_and_changed_by_who_cannot_read_it() -> None:
    layout, secret = Layout(512, 4), keys()[0].secret
    gallery, enrolled = SealedGallery(layout), quantise(faces(40))
    gallery.add_groups(seal_groups(secret, layout, enrolled), 40)
    probes = quantise(faces(2, seed=3))
    got = scores(gallery.answer(probes, keys()[1].public), layout.width, 40)
    require_equal(got, plain_scores(probes, enrolled))
    gallery.change(5, seal_change(secret, layout, 5, -enrolled[5].astype(np.int32)), taken=False)
    enrolled[5] = 0
    require_equal(scores(gallery.answer(probes, keys()[1].public), layout.width, 40), plain_scores(probes, enrolled))
    assert gallery.people == 39
    with pytest.raises(UsageError, match="norm"):
        list(gallery.answer((probes * 3).astype(np.int16), keys()[1].public))


def test_shards_answer_as_one_gallery_and_a_killed_one_is_not_passed_over() -> None:
    enrolled, probes = quantise(faces(600)), quantise(faces(1, seed=2))
    with ShardedGallery(Layout(512, 8), 2) as gallery:
        gallery.add(enrolled)
        gallery.renew(599, probes[0])
        gallery.erase(0)
        enrolled[599], enrolled[0] = probes[0], 0
        sealed = sealed_probes(gallery, probes)
        got = scores(gallery.answer(sealed, keys()[1].public), gallery.layout.width, 600)
        require_equal(got, plain_scores(probes, enrolled))
        assert sum(answer.first.shape[1] for answer in gallery.answer(sealed, keys()[1].public, 9)) == 1
        next(gallery.answer(sealed, keys()[1].public)).first.sum()  # who asks may go away
        assert (gallery.read(599) == probes[0]).all()
        gallery._processes[1].kill()
        gallery._processes[1].join()
        with pytest.raises(InternalError, match="ended"):
            list(gallery.answer(sealed, keys()[1].public))


def test_masks_drawn_ahead_are_used_once_and_by_their_key_alone() -> None:
    enrolled, probes = quantise(faces(40, 128)), quantise(faces(2, 128, seed=2))
    public, stranger = keys()[1].public, keys()[0].secret.public()
    for gallery in (PlainGallery(Layout(128, 2)), ShardedGallery(Layout(128, 2), 2)):
        gallery.add(enrolled)
        while not gallery.draw_ahead(public, 2):
            continue
        sealed = sealed_probes(gallery, probes[[0, 0]])
        first, second, third, other = (
            list(gallery.answer(one, key))
            for one, key in ((sealed, public), (sealed[:1], public), (sealed, public), (sealed[:1], stranger))
        )
        halves = [
            half[q]
            for one in (first, second, third, other)
            for a in one
            for half in (a.first,)
            for q in range(len(half))
        ]
        seen = {row.tobytes() for half in halves for row in half}
        assert len(seen) == sum(map(len, halves)), "of the same probe, and no two answers are masked alike"
        require_equal(scores(first, gallery.layout.width, 40), plain_scores(probes[[0, 0]], enrolled))
        require_equal(scores(third, gallery.layout.width, 40), plain_scores(probes[[0, 0]], enrolled))
        if isinstance(gallery, ShardedGallery):
            gallery.close()


def test_a_supply_of_masks_gives_each_out_once() -> None:
    public, supply = keys()[1].public, masking.Supply(64)
    supply.draw(public, 3)
    supply.draw(public, 2)
    assert supply.count(public) == 5
    drawn = {row.tobytes() for one in supply._drawn[public.seed] for row in one.second}
    taken = [supply.take(public, rows) for rows in (1, 3, 2)]
    assert [len(one) for one in taken] == [1, 3, 2]
    assert supply.count(public) == 0
    rows = [row.tobytes() for one in taken for row in one.second]
    assert len(set(rows)) == 6
    assert drawn <= set(rows), "five were there, and the sixth was drawn"


def test_malformed_ciphertexts_are_refused_before_they_are_multiplied() -> None:
    gallery = PlainGallery(Layout(512, 2))
    gallery.add(quantise(faces(5)))
    good = sealed_probes(gallery, quantise(faces(1)))
    large = good.copy()
    large[0, 0, 17, 0, 0] = PRIMES[0]
    for wrong in (large, good[:, :1], good[..., :1], good.astype(np.int64)):
        with pytest.raises(UsageError, match="probe"):
            list(gallery.answer(wrong, keys()[1].public))


WRITTEN: list[str] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and WRITTEN is not None and arguments[2] & 3:
        WRITTEN.append(str(arguments[0]))


def test_nothing_of_a_gallery_is_written_to_disk(tmp_path: Path) -> None:
    sys.addaudithook(_watch)
    (tmp_path / "seen").write_bytes(b"")
    assert str(tmp_path / "seen") in WRITTEN  # so that the hook can see something
    WRITTEN.clear()
    gallery = PlainGallery(Layout(512, 2))
    gallery.add(quantise(faces(20)))
    gallery.erase(3)
    list(gallery.answer(sealed_probes(gallery, quantise(faces(1))), keys()[1].public))
    assert not WRITTEN
