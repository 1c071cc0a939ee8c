"""The schemas of result cards, made from their records: published cards follow them, and others are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bauta.benchmark.adaptive.cards import AdaptiveCard
from bauta.benchmark.cancelable.cards import CancelableCard
from bauta.benchmark.certified.cards import CertifiedCard
from bauta.benchmark.engine.cards import Card, card_schema, finish, read_card, schema_of, to_json
from bauta.benchmark.engine.records import CardRecord
from bauta.benchmark.families import read_cards
from bauta.benchmark.photos.cards import PhotoCard
from bauta.benchmark.recognition import RecognizersCard
from bauta.benchmark.stores.cards import StoreCard
from bauta.errors import UsageError
from bauta.schema import check

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"
KINDS: dict[type[CardRecord], tuple[int, str]] = {
    PhotoCard: (33, "lfw-combined"),
    AdaptiveCard: (5, "adaptive-lfw-pgd"),
    StoreCard: (62, "keys-advface-sealed"),
    RecognizersCard: (3, "recognizers"),
    CancelableCard: (2, "cancelable-iom-grp"),
    CertifiedCard: (4, "certify-base-0.12"),
}
"""How many cards of each kind there are at least, and one with as many fields as possible."""

needs_results = pytest.mark.skipif(not RESULTS.is_dir(), reason="result cards are not part of an installation")
of_every_kind = pytest.mark.parametrize("kind", KINDS, ids=schema_of)


def example(kind: type[CardRecord]) -> Card:
    """A card of a kind with a few records."""
    card: Card = json.loads((RESULTS / f"{KINDS[kind][1]}.json").read_text(encoding="utf-8"))
    return card | {"records": card["records"][:2]} if "records" in card else card


@needs_results
@of_every_kind
def test_cards_that_were_published_still_load(kind: type[CardRecord]) -> None:
    found = 0
    for path in RESULTS.glob("*.json"):
        text = path.read_text(encoding="utf-8")
        if f'"schema": "{schema_of(kind)}"' in text:
            assert read_card(path, kind) == json.loads(text)
            found += 1
    assert found >= KINDS[kind][0]


def places(value: Any, schema: dict[str, Any], path: str = "card") -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """One place of each sort in a card: its name, the value there, and its schema."""
    for option in schema.get("anyOf", ()):
        if isinstance(value, dict) == (option.get("type") == "object"):
            yield from places(value, option, path)
            return
    yield path, value, schema
    if isinstance(value, list) and value:
        yield from places(value[0], schema["items"], f"{path}[]")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        for key in known.keys() & value.keys():
            yield from places(value[key], known[key], f"{path}.{key}")
        rest = schema["additionalProperties"]
        if rest and value.keys() - known.keys():
            yield from places(next(value[key] for key in value if key not in known), rest, f"{path}.*")


@needs_results
@of_every_kind
def test_a_field_that_is_missing_wrong_or_unknown_is_refused(kind: type[CardRecord]) -> None:
    card, schema = example(kind), card_schema(kind)
    check(card, schema, "card")
    tried = 0
    for where, value, wanted in places(card, schema):
        changes: list[Any] = [object()] if wanted else []
        if isinstance(value, dict) and "properties" in wanted:
            changes += [{**value, "surprise": 1}]
            changes += [{key: one for key, one in value.items() if key != left_out} for left_out in wanted["required"]]
        elif isinstance(value, str):
            changes += [1]
        for change in changes:
            with pytest.raises(UsageError, match="card"):
                check(change, wanted, where)
            tried += 1
    assert tried > 50


@needs_results
@of_every_kind
def test_wrong_cards_are_refused_by_their_place(kind: type[CardRecord], tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    number = next(name for name in ("fmr", "fmrs", "seed") if name in example(kind))
    for change, said in (
        ({"surprise": 1}, "surprise"),
        ({number: "few"}, f"{number}: 'few'"),
        ({"code": {**example(kind)["code"], "sha256": "0" * 63}}, r"code\.sha256"),
        ({"run": {}}, r"run: .* lacks command, created, .*machine"),
        ({"schema": "bauta.none/1"}, "bauta.none/1"),
    ):
        path.write_text(json.dumps(example(kind) | change))
        with pytest.raises(UsageError, match=said):
            read_card(path, kind)


@needs_results
@of_every_kind
def test_a_card_is_written_as_it_was_read(kind: type[CardRecord]) -> None:
    card = {key: value for key, value in example(kind).items() if key not in ("schema", "complete")}
    whole = finish(card, kind)
    assert (next(iter(whole)), list(whole)[-1]) == ("schema", "complete")
    assert json.loads(to_json(whole)) == whole


@needs_results
@pytest.mark.parametrize("name", ["surrogates-clean", "adaptive-lfw-pgd", "keys-advface-sealed", "recognizers"])
def test_figures_follow_from_the_records_and_tables_show_them(name: str) -> None:
    family, (card,) = read_cards([RESULTS / f"{name}.json"])
    figures = family.figures(card)
    if "quality" in figures:  # a measure that came later is of nothing
        figures["quality"] = {key: one for key, one in figures["quality"].items() if key in card["results"]["quality"]}
    assert {key: card["results"][key] for key in figures} == figures
    for table in family.tables([card]):
        assert {len(row) for row in table.rows} == {len(table.header)}
    assert all(isinstance(text, str) for text in family.notes([card]))


@needs_results
@pytest.mark.parametrize("name", ["lfw-default", "robustness-noise", "adaptive-lfw-pgd", "keys-advface-sealed"])
def test_a_card_is_equal_to_itself(name: str) -> None:
    family, (card,) = read_cards([RESULTS / f"{name}.json"])
    found = family.compare(card, card)
    assert found
    assert all((one.difference.mean, one.difference.low, one.difference.high) == (0, 0, 0) for one in found)
    assert all(one.equal and not one.decided for one in found)


@needs_results
@pytest.mark.parametrize(
    ("first", "second", "figure"),
    [
        ("adaptive-lfw-noise", "adaptive-lfw-pgd", "dodging, none"),
        ("hybrid-small-hybrid", "hybrid-small-unprotected", "replay at the system, "),
        ("lfw-blur", "lfw-default", "dodging, saved"),
    ],
)
def test_a_stronger_method_is_told_apart(first: str, second: str, figure: str) -> None:
    family, cards = read_cards([RESULTS / f"{name}.json" for name in (first, second)])
    there, back = family.compare(*cards), family.compare(*reversed(cards))
    found = [one for one in there if one.name.startswith(figure)]
    assert any(one.decided and one.second > one.first and not one.equal for one in found)
    assert {one.name: round(one.difference.mean, 9) for one in there} == {
        one.name: -round(one.difference.mean, 9) for one in back
    }


@needs_results
def test_cards_that_cannot_be_compared_are_refused() -> None:
    family, (card,) = read_cards([RESULTS / "keys-advface-sealed.json"])
    for change, said in (
        ({"records": [{**one, "subject": "x"} for one in card["records"]]}, "share no pairs"),
        ({"fmrs": [0.5]}, "share no false match rate"),
        (
            {"thresholds": {n: [{**o, "cosine": 0.9} for o in one] for n, one in card["thresholds"].items()}},
            "another thr",
        ),
    ):
        with pytest.raises(UsageError, match=said):
            family.compare(card, card | change)
    family, (card,) = read_cards([RESULTS / "recognizers.json"])
    with pytest.raises(UsageError, match="no records"):
        family.compare(card, card)
