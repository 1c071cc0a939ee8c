"""Cancelable templates: codes compare as templates do, tokens decide, and wrong parts are refused by name."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import pytest

from bauta import metrics
from bauta.attacks.cancelable import invert
from bauta.benchmark.cancelable import measures
from bauta.benchmark.cancelable.cards import CancelableFigures
from bauta.benchmark.cancelable.measures import Faces, linkage, measure
from bauta.benchmark.cancelable.recipe import CancelableRecipe, CancelableRow, read_recipe
from bauta.errors import UsageError
from bauta.registry import list_methods, load_method
from bauta.schema import check, json_schema
from bauta.templates.cancelable.base import Binary, CodeIndex, Issued, Reference, Scheme, Token
from bauta.templates.cancelable.hashes import BioHash, BioHashConfig, MlpHash, MlpHashConfig
from bauta.templates.cancelable.iom import IomConfig, IomGrp
from bauta.templates.cancelable.polyprotect import PolyProtect, PolyProtectConfig
from bauta.templates.cancelable.streams import Stream

SIZE = 128
KEY = bytes(range(32))
SCHEMES: list[Scheme] = [
    IomGrp(IomConfig(groups=128, projections=8)),
    BioHash(BioHashConfig(bits=128)),
    MlpHash(MlpHashConfig(bits=128)),
    PolyProtect(),
]
of_every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.card.name)
of_every_hash = pytest.mark.parametrize("scheme", SCHEMES[:3], ids=lambda scheme: scheme.card.name)


def people(count: int, photos: int = 2, seed: int = 0) -> Any:
    """(count, photos, SIZE) templates, photos of one person at a cosine of about .7."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(count, 1, SIZE)) + 0.65 * random.normal(size=(count, photos, SIZE))
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def test_the_four_schemes_are_registered_and_the_first_is_the_default() -> None:
    names = {"iom-grp", "biohash", "mlp-hash", "polyprotect"}
    assert {card.name for card in list_methods(kind="cancelable")} == names
    assert all(issubclass(load_method(name, kind="cancelable"), Scheme) for name in names)


@of_every_scheme
def test_a_person_is_told_from_others_with_one_token(scheme: Scheme) -> None:
    faces = people(60)
    enrolled, probes = (scheme.codes(faces[:, photo], KEY) for photo in (0, 1))
    genuine, strangers = scheme.compare(enrolled, probes), scheme.compare(enrolled, np.roll(probes, 1, 0))
    assert metrics.auroc(genuine, strangers) > 0.99


@of_every_scheme
def test_codes_of_one_face_under_two_tokens_are_as_far_apart_as_those_of_two(scheme: Scheme) -> None:
    face = people(1)[0, :1]
    scores = [
        float(scheme.compare(scheme.codes(face, bytes([n]) * 32), scheme.codes(face, bytes([n + 1]) * 32))[0])
        for n in range(0, 60, 2)
    ]
    others = scheme.compare(scheme.codes(people(30)[:, 0], KEY), scheme.codes(people(30, seed=1)[:, 0], KEY))
    assert abs(np.mean(scores) - np.mean(others)) < 0.15
    assert np.mean(scores) < 0.7


@of_every_scheme
def test_a_token_decides_the_code_and_so_do_settings(scheme: Scheme) -> None:
    face = people(1)[0, :1]
    again = type(scheme)(scheme.config)
    assert np.array_equal(scheme.codes(face, KEY), again.codes(face, KEY))
    assert not np.array_equal(scheme.codes(face, KEY), scheme.codes(face, bytes(32)))
    assert not np.array_equal(scheme.codes(face, KEY), type(scheme)(scheme.config, recognizer="x").codes(face, KEY))


@of_every_scheme
def test_parts_survive_their_bytes_and_match(scheme: Scheme) -> None:
    face = people(1)[0]
    issued = scheme.enrol(face[0])
    reference = scheme.reference_from_bytes(issued.reference.to_bytes(), SIZE)
    token = Token.from_bytes(issued.token.to_bytes())
    assert token == issued.token
    assert scheme.match(reference, token, face[0]) == pytest.approx(1)
    assert scheme.match(reference, token, face[1]) == scheme.match(issued.reference, issued.token, face[1])
    assert issued.token.secret not in issued.reference.to_bytes()
    assert issued.token.secret.hex() not in repr(issued)
    assert str(issued.token.secret) not in repr(issued)


def test_enrolment_draws_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    face, drawn, asked = people(1)[0, 0], secrets.token_bytes, list[int]()

    def counted(count: int) -> bytes:
        asked.append(count)
        return drawn(count)

    monkeypatch.setattr(secrets, "token_bytes", counted)
    one, other = SCHEMES[0].enrol(face), SCHEMES[0].enrol(face)
    assert sorted(asked) == [16, 16, 32, 32]
    assert one.token.secret != other.token.secret
    assert one.token.id != other.token.id


@of_every_scheme
def test_a_renewed_reference_refuses_the_old_token_and_owes_the_old_one_nothing(scheme: Scheme) -> None:
    face = people(1)[0]
    old = scheme.enrol(face[0])
    new = scheme.renew(old.reference, face[1])
    assert new.replaces == old.reference.id
    assert not {new.token.id, new.token.secret} & {old.token.id, old.token.secret}
    with pytest.raises(UsageError, match="of another reference, or of one that was renewed"):
        scheme.match(new.reference, old.token, face[1])


def issued() -> Issued:
    return SCHEMES[0].enrol(people(1)[0, 0])


def test_parts_of_another_scheme_setting_or_recogniser_are_refused() -> None:
    own, face = issued(), people(1)[0, 0]
    for other in (SCHEMES[1], IomGrp(), IomGrp(IomConfig(groups=128, projections=8), recognizer="ab")):
        with pytest.raises(UsageError, match="made by another scheme"):
            other.match(own.reference, own.token, face)
        with pytest.raises(UsageError, match="made by another scheme"):
            other.reference_from_bytes(own.reference.to_bytes(), SIZE)


OLD = bytes.fromhex(  # of the first unit vector under `KEY`, when 256 groups were the default
    "afc1d606d48e7532a56f120e5dd8c69cf472d5861536429b677da60cb74ca31e3de903723c5c18271f38e8180cca540e575e892f50506ce1"
    "f9df09eedfcb282bbb8e133644216c71fcbced4ee94543e646cf38fc15be1b5e089200dbccd50a20505fb11bc95703d22b356f1ed655daaa"
    "b23582b8560c94b19d513ce9a5f2cb4e"
)


def test_what_an_earlier_default_stored_is_read_with_its_settings_and_says_so_without_them() -> None:
    digest = bytes.fromhex("9858c0cc6fc3845a104ba2127396f3014056d6a0cf89ccc0a0d69144c7b081b0")
    stored, token = b"BAUTA-PI" + digest + bytes(16) + OLD, Token(digest, bytes(16), KEY)
    earlier, face = IomGrp(IomConfig(groups=256)), np.eye(1, SIZE, dtype=np.float32)[0]
    reference = earlier.reference_from_bytes(stored, SIZE)
    assert earlier.match(reference, token, face) == 1
    for refused in (
        lambda: IomGrp().match(reference, token, face),
        lambda: IomGrp().reference_from_bytes(stored, SIZE),
    ):
        with pytest.raises(UsageError, match=r"earlier version: give IomConfig\(groups=256, projections=16\)"):
            refused()
    renewed = IomGrp().renew(reference, face)
    assert renewed.replaces == reference.id
    assert len(renewed.reference.code.tobytes()) == 2 * len(OLD)


def test_codes_of_another_length_are_refused() -> None:
    own, face = issued(), people(1)[0, 0]
    short = Reference(own.reference.scheme, own.reference.id, own.reference.code[:, :1])
    with pytest.raises(UsageError, match="Codes of different lengths do not compare"):
        SCHEMES[0].match(short, own.token, face)
    with pytest.raises(UsageError, match="bytes"):
        SCHEMES[0].reference_from_bytes(own.reference.to_bytes()[:-8], SIZE)
    with pytest.raises(UsageError, match="not uint64"):
        CodeIndex(IomGrp(), np.zeros((3, 4, 1), np.uint64))


@pytest.mark.parametrize("content", [b"", b"BAUTA-AD", bytes(88), b"BAUTA-AD" + bytes(60), b"BAUTA-AD" + bytes(90)])
def test_bytes_that_are_no_token_are_refused(content: bytes) -> None:
    with pytest.raises(UsageError, match="token"):
        Token.from_bytes(content)


def test_a_token_is_no_reference() -> None:
    own = issued()
    with pytest.raises(UsageError, match="not a reference"):
        SCHEMES[0].reference_from_bytes(own.token.to_bytes(), SIZE)
    with pytest.raises(UsageError, match="not a token"):
        Token.from_bytes(own.reference.to_bytes())


def test_numbers_that_are_none_are_refused() -> None:
    own = SCHEMES[3].enrol(people(1)[0, 0])
    broken = Reference(own.reference.scheme, own.reference.id, np.full_like(own.reference.code, np.nan))
    with pytest.raises(UsageError, match="NaN"):
        SCHEMES[3].reference_from_bytes(broken.to_bytes(), SIZE)
    for wrong in (np.full(SIZE, np.nan, np.float32), np.ones(SIZE, np.float32), np.zeros(SIZE, np.float32)):
        with pytest.raises(UsageError, match="unit norm"):
            SCHEMES[0].enrol(wrong)
    with pytest.raises(UsageError, match="not templates"):
        SCHEMES[0].codes(np.ones(SIZE, np.float32), KEY)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (IomConfig, {"groups": 100}),
        (IomConfig, {"projections": 12}),
        (BioHashConfig, {"bits": 65}),
        (MlpHashConfig, {"layers": 0}),
        (PolyProtectConfig, {"overlap": 7}),
        (PolyProtectConfig, {"terms": 1}),
    ],
)
def test_settings_that_make_no_sense_are_refused(kind: Any, settings: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="cannot run with"):
        kind(**settings)


def test_more_bits_than_a_template_has_numbers_are_refused_with_what_fits() -> None:
    with pytest.raises(UsageError, match="Set bits to 128 at most"):
        BioHash().enrol(people(1)[0, 0])


def test_polyprotect_is_its_formula() -> None:
    """The sum written out, on a template that needs padding."""
    scheme, template = PolyProtect(PolyProtectConfig(terms=3, overlap=1, largest=10)), people(1)[0, 0]
    coefficients, exponents, _ = scheme.maps(SIZE, KEY)
    assert sorted(exponents) == [1, 2, 3]
    assert len(set(coefficients.tolist())) == 3
    assert 0 not in coefficients
    padded = [*template.tolist(), 0.0, 0.0, 0.0]
    expected, start = [], 0
    while True:
        expected.append(
            sum(c * padded[start + i] ** e for i, (c, e) in enumerate(zip(coefficients, exponents, strict=False)))
        )
        if start + 3 >= SIZE:
            break
        start += 2
    assert scheme.codes(template[None], KEY)[0] == pytest.approx(np.array(expected), abs=1e-6)


def test_an_index_of_the_maximum_is_that_of_the_projections() -> None:
    scheme, template = IomGrp(IomConfig(groups=64, projections=4)), people(1)[0, :1]
    (directions,) = scheme.maps(SIZE, KEY)
    expected = (template @ directions.T).reshape(64, 4).argmax(1)
    (code,) = scheme.codes(template, KEY)
    found = [sum(((int(code[plane, 0]) >> group) & 1) << plane for plane in range(2)) for group in range(64)]
    assert found == expected.tolist()


def test_draws_are_normal_orthonormal_and_orders() -> None:
    stream = Stream(KEY, b"test")
    numbers = stream.normal(500, 400)
    assert abs(numbers.mean()) < 0.01
    assert abs(numbers.std() - 1) < 0.01
    assert abs(float((numbers > 1.2816).mean()) - 0.1) < 0.005
    matrix = stream.orthonormal(96, 64)
    assert np.abs(matrix.T @ matrix - np.eye(64)).max() < 1e-5
    assert sorted(stream.order(50)) == list(range(50))
    assert Stream(KEY, b"test").normal(3, 3).tolist() != Stream(KEY, b"other").normal(3, 3).tolist()


@of_every_hash
def test_the_index_counts_what_a_loop_over_symbols_counts(scheme: Binary) -> None:
    codes = scheme.codes(people(200)[:, 0], KEY)
    index = CodeIndex(scheme, codes)
    index.BLOCK = 64  # several blocks
    probe = scheme.codes(people(200)[:, 1], KEY)[7]
    bits = np.unpackbits(codes.view(np.uint8), axis=-1, bitorder="little")
    asked = np.unpackbits(probe.view(np.uint8), axis=-1, bitorder="little")
    expected = (bits != asked).any(1).sum(1)
    assert index.different(probe).tolist() == expected.tolist()
    assert [place for place, _ in index.best(probe, 3)] == np.argsort(expected, kind="stable")[:3].tolist()
    assert index.best(probe, 1)[0][0] == 7
    assert len(index.best(probe, 500)) == 200
    assert scheme.compare(codes, probe) == pytest.approx(1 - expected / scheme.symbols)


@of_every_scheme
def test_a_thief_of_both_parts_computes_templates_back_and_more_records_tell_more(scheme: Scheme) -> None:
    faces = people(6)
    keys = [bytes([n]) * 32 for n in range(6)]
    maps = [scheme.maps(SIZE, key) for key in keys]
    codes = [scheme.codes(faces[:, 0], key) for key in keys]
    start = np.full(SIZE, 1e-3, np.float32)
    cosines = [
        float((invert(scheme, codes[:count], maps[:count], start) * faces[:, 0]).sum(1).mean()) for count in (1, 6)
    ]
    wrong = invert(scheme, codes[:1], [scheme.maps(SIZE, bytes([99]) * 32)], start)
    assert cosines[0] > 0.3  # of unrelated templates of 128 numbers it is 0 +- .09
    assert cosines[1] > cosines[0] + 0.1
    assert abs(float((wrong * faces[:, 0]).sum(1).mean())) < 0.2


@of_every_scheme
def test_the_figures_of_a_row_follow_the_schema(scheme: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RECORDS": (1, 2), "STORES": 1, "LINKED": 20, "KNOWN": (10, 2), "SEARCHED": 300}.items():
        monkeypatch.setattr(measures, name, value)
    faces = Faces(people(24, 3), tuple(map(str, range(24))), people(5, seed=9)[:, 0])
    figures, speed = measure(scheme, faces, 3, 0, lambda *_: None)
    check(figures, json_schema(CancelableFigures, "test/1", complete=True), "figures")
    assert figures["plain"]["tmr"]["mean"] == 1
    assert figures["normal"]["tmr"]["mean"] >= figures["stolen"]["tmr"]["mean"] - 0.05
    assert figures["inversion"][1]["cosine"]["mean"] > figures["inversion"][0]["cosine"]["mean"]
    assert (speed["search_ms"] is None) == (not isinstance(scheme, Binary))


def test_linkage_is_seen_where_it_is_and_not_where_it_is_not() -> None:
    random = np.random.default_rng(0)
    linked = linkage(random.normal(3, 1, 2000), random.normal(0, 1, 2000), 0)
    apart = linkage(random.normal(0, 1, 2000), random.normal(0, 1, 2000), 0)
    assert linked["d_sys"] > 0.7 > 0.1 > apart["d_sys"]
    assert apart["null"]["low"] - 0.02 <= apart["d_sys"] <= apart["null"]["high"] + 0.02


def test_the_carried_recipe_names_schemes_that_exist() -> None:
    recipe = read_recipe("cancelable")
    assert next(row.scheme("").card.name for row in recipe.rows) == "iom-grp"


@pytest.mark.parametrize(
    "change", [{"rows": ()}, {"people": 3}, {"photos": 2}, {"victims": 1}, {"victims": 400}, {"seed": -1}]
)
def test_recipes_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    given = {"name": "x", "rows": (CancelableRow("a", "iom-grp"),)} | change
    with pytest.raises(UsageError, match=next(iter(change))):
        CancelableRecipe(**given)


def test_a_method_of_another_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="No cancelable is called 'advface'"):
        CancelableRow("a", "advface").scheme("")
