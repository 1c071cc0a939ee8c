"""Result cards for people: tables, in plain text and Markdown, and a page with plots that needs nothing else.

The page fetches no script, font or picture, and its content security policy forbids it. Plots are drawn as SVG from
what cards keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bauta.benchmark import plots
from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.compare import Difference
from bauta.benchmark.engine.table import Family, Table, label, percent, require_cards
from bauta.benchmark.identification import RANKS
from bauta.benchmark.photos.cards import PhotoCard
from bauta.benchmark.photos.results import compare, still_recognised, summarise
from bauta.benchmark.protocols import Cell
from bauta.judging.quality import MEASURES, SEEN
from bauta.pages import page_template

Interval = Mapping[str, float]

HEADER = ("row", "pairs", "dodging", "worst judge", "matches a target (before)", "PSNR", "SSIM")
_LISTED = 12  # failures of each card that the page names
_SEEN_FORMS = {
    "displacement": "{:.1f} %",
    "strain": "{:.3f}",
    "lightness_psnr": "{:.1f} dB",
    "lightness_ssim": "{:.3f}",
    "noticed": "{:.2f}",
    "chroma": "{:.2f}",
    "colour": "{:.1f}",
    "irises": "{:.1f}",
    "lips": "{:.1f}",
}
_MEASURES = {"psnr": "PSNR", "ssim": "SSIM", "ms_ssim": "MS-SSIM", "flip": "FLIP", "lpips": "LPIPS"}
_SETS = {"mmd": "MMD", "frechet_onet": "Fréchet (O-Net)"}
_PLACES = {"": "mask", "_saved": "face", "_photo": "photo"}


def rows(cards: Sequence[Card]) -> list[tuple[str, ...]]:
    """The first table's cells, in the order of `HEADER`.

    Percent with 95 % intervals. Dodging is of the saved photo, the mean of judges that the row did not attack; where
    it attacked all, of all, with an asterisk. PSNR and SSIM are those of the saved photo's face.

    Raises:
        UsageError: when there is no card.
    """
    require_cards(cards)
    return [(label(card, cards), *_cells(card)) for card in cards]


class Photos(Family):
    """Cards of photos."""

    record = PhotoCard

    def figures(self, card: Card) -> Card:
        """See `summarise`."""
        return summarise(card["records"], card["judges"], card["transports"])

    def tables(self, cards: Sequence[Card]) -> list[Table]:
        """The first table, and then those that the cards have figures for.

        Raises:
            UsageError: when there is no card.
        """
        found = self.glance(cards)
        candidates = (
            _transports(cards),
            _judges(cards),
            _protected_sides(cards),
            _identification(cards),
            _snowball(cards),
            _seen(cards),
            _quality(cards),
        )
        return found + [table for table in candidates if table is not None]

    def compare(self, first: Card, second: Card) -> list[Difference]:
        """See `compare`."""
        return compare(first, second)

    def glance(self, cards: Sequence[Card]) -> list[Table]:
        """The first table.

        Raises:
            UsageError: when there is no card.
        """
        return [Table("", HEADER, rows(cards))]

    def notes(self, cards: Sequence[Card]) -> list[str]:
        """What readers of the tables must know, each once."""
        notes = [
            f"{card['name']}: {card['note']}" if card["evidence"] else card["note"] for card in cards if card["note"]
        ]
        if any(card["results"]["dodging"]["saved"]["independent"] is None for card in cards):
            notes.append("* All judges of this row were attacked by it: no independent one was asked.")
        if len({card["data"]["sha256"] for card in cards}) > 1:
            notes.append("The rows are of different photos: compare them with care, or with `bauta bench compare`.")
        if any(card["compared_with"] != "another photo" for card in cards):
            notes.append("Without other photos of the people, photos are compared with their own originals.")
        return list(dict.fromkeys(notes))

    def page(self, cards: Sequence[Card]) -> str:
        """The page, complete in itself.

        Raises:
            UsageError: when there is no card.
        """
        first, *further = self.tables(cards)
        return page_template("benchmark", "report.html.j2").render(
            cards=cards,
            table=first,
            further=further,
            notes=self.notes(cards),
            curve=plots.success_against_ssim(
                cards, [label(card, cards) for card in cards], [_headline(card, "saved") for card in cards]
            ),
            details=[_detail(card, cards) for card in cards],
            percent=percent,
        )


def _cells(card: Card) -> tuple[str, ...]:
    results = card["results"]
    saved = results["dodging"]["saved"]
    star = _star(saved)
    asked = [judge["name"] for judge in card["judges"] if star or not judge["attacked"]]
    judged = {name: saved["judges"][name] for name in asked if saved["judges"][name] is not None}
    worst = min(judged, key=lambda name: judged[name]["mean"], default=None)
    after, before = results["matches_target"], results["matches_target_before"]
    ratio, similarity = results["quality"]["psnr_saved"], results["quality"]["ssim_saved"]
    return (
        f"{results['usable']} of {results['pairs']}",
        percent(_chosen(saved)) + star,
        "-" if worst is None else f"{worst} {percent(judged[worst])}",
        "-" if after is None else f"{100 * after['mean']:.1f} ({100 * before['mean']:.1f})",
        "-" if ratio is None else f"{ratio['mean']:.1f} dB",
        "-" if similarity is None else f"{similarity['mean']:.3f}",
    )


def _transports(cards: Sequence[Card]) -> Table | None:
    names = list(dict.fromkeys(name for card in cards for name in card["transports"]))
    if len(names) < 2:
        return None

    def cell(card: Card, name: str) -> str:
        found = card["results"]["dodging"].get(name)
        return "-" if found is None else _by_judges(found)

    return Table(
        "After what happens to shared photos",
        ("transport", *(label(card, cards) for card in cards)),
        [(name, *(cell(card, name) for card in cards)) for name in names],
        "Dodging, percent. Chains are read from left to right.",
    )


def _judges(cards: Sequence[Card]) -> Table | None:
    names = list(dict.fromkeys(judge["name"] for card in cards for judge in card["judges"]))
    if len(names) < 2:
        return None

    def cell(card: Card, name: str) -> str:
        judge = next((judge for judge in card["judges"] if judge["name"] == name), None)
        if judge is None:
            return "-"
        found = percent(card["results"]["dodging"]["saved"]["judges"][name])
        return f"[{found}]" if judge["attacked"] else found

    return Table(
        "By judge",
        ("row", *names),
        [(label(card, cards), *(cell(card, name) for name in names)) for card in cards],
        "Dodging of the saved photo, percent. In brackets: the row attacked this very network.",
    )


def _protected_sides(cards: Sequence[Card]) -> Table | None:
    having = [card for card in cards if "cells" in card["results"]]
    if not having:
        return None
    cells = (Cell.PROBE, Cell.GALLERY, Cell.BOTH)
    return Table(
        "Which photo is protected",
        ("row", *(cell.value for cell in cells)),
        [
            (label(card, cards), *(_by_judges(card["results"]["cells"][cell.value]) for cell in cells))
            for card in having
        ],
        "Dodging, percent. Where both photos are protected, masks may make them match each other.",
    )


def _identification(cards: Sequence[Card]) -> Table | None:
    having = [card for card in cards if "identification" in card["results"]]
    if not having:
        return None
    found = []
    for card in having:
        for cell, rates in card["results"]["identification"]["cells"].items():
            figures = tuple(_by_judges(rates[aim][str(rank)]) for aim in ("untargeted", "targeted") for rank in RANKS)
            if cell != Cell.NEITHER:
                found.append((f"{label(card, cards)}, {cell}", *figures))
            elif all(known[1:] != figures for known in found):  # rows of the same photos have it in common
                found.append((cell, *figures))
    sizes = dict.fromkeys(
        f"{card['results']['identification']['probes']} searches among {people} faces"
        for card in having
        for people in [card["results"]["subjects"] + card["gallery"]["strangers"] + card["gallery"]["targets"]]
    )
    return Table(
        "Searching",
        (
            "row",
            *(f"not found, rank {rank}" for rank in RANKS),
            *(f"target found, rank {rank}" for rank in RANKS),
        ),
        found,
        f"Percent of searches, {' and '.join(sizes)}: how often the person is not found, and how often a target is, "
        f"at ranks {' and '.join(map(str, RANKS))}. All searches count: the row "
        "unprotected is what recognisers miss, and take for a target, without protection.",
    )


def _snowball(cards: Sequence[Card]) -> Table | None:
    having = [card for card in cards if "snowball" in card["results"]]
    if not having:
        return None
    return Table(
        "Snowball",
        ("row", "protected photos", "recognised at once", "in the end"),
        [
            (
                label(card, cards),
                str(card["results"]["snowball"]["photos"]),
                *(_by_judges(card["results"]["snowball"][which]) for which in ("first", "last")),
            )
            for card in having
        ],
        "Percent of the protected photos of people of whom one clean photo is known: each that is recognised joins the "
        "gallery, and all are searched for again, until none is new.",
    )


def _quality(cards: Sequence[Card]) -> Table:
    measured = [
        name for name in MEASURES if name not in SEEN and any(card["results"]["quality"].get(name) for card in cards)
    ]
    sets = [name for name in _SETS if any(card.get("set_quality", {}).get(name) is not None for card in cards)]
    figures = []
    for card in cards:
        found = [card["results"]["quality"].get(name) for name in measured]
        whole = [card.get("set_quality", {}).get(name) for name in sets]
        cells = [
            "-" if one is None else _figure(name, one["mean"]) for name, one in zip(measured, found, strict=True)
        ] + ["-" if value is None else f"{value:.3g}" for value in whole]
        figures.append((label(card, cards), *cells))
    return Table(
        "How much can be seen",
        (
            "row",
            *(f"{_MEASURES[name.partition('_saved')[0].partition('_photo')[0]]}, {_place(name)}" for name in measured),
            *(_SETS[name] for name in sets),
        ),
        figures,
        "Means over photos: of the mask on the pixels of the face, of the face as saved, of the photo as saved. PSNR, "
        "SSIM and MS-SSIM: more is better; FLIP and LPIPS: less is. MMD and the Fréchet distance are of all faces as a "
        "set, and depend on their number; the latter is on MTCNN's output network and no FID.",
    )


def _seen(cards: Sequence[Card]) -> Table | None:
    rows = [card for card in cards if card["results"]["quality"].get("displacement")]
    if not rows:
        return None
    return Table(
        "What people see",
        ("row", "displacement", "strain", "PSNR", "SSIM", "noticed", "chroma", "colour", "irises", "lips"),
        tuple(
            (
                label(card, cards),
                *(
                    "-" if (one := card["results"]["quality"].get(name)) is None else form.format(one["mean"])
                    for name, form in _SEEN_FORMS.items()
                ),
            )
            for card in rows
        ),
        "Means over photos of the edit of the face, before it is saved. Displacement in percent of the distance of "
        "the eyes, and strain: the largest of a face. PSNR and SSIM of lightness once the movement is undone; noticed: "
        "its root mean square in just-noticeable differences of each place; chroma: root mean square in 1/255; "
        "colours: CIEDE2000 after a slight blur, 95th percentile over the face, and means "
        "inside irises and lips. About 1 is just seen side by side.",
    )


def _place(measure: str) -> str:
    return next(place for ending, place in reversed(_PLACES.items()) if measure.endswith(ending))


def _figure(measure: str, value: float) -> str:
    return f"{value:.1f} dB" if measure.startswith("psnr") else f"{value:.3f}"


def _by_judges(figure: Mapping[str, Any]) -> str:
    return percent(_chosen(figure)) + _star(figure)


def _chosen(figure: Mapping[str, Any]) -> Interval | None:
    """Of judges that were not attacked; of all when there are none."""
    found: Interval | None = figure["mean"] if figure["independent"] is None else figure["independent"]
    return found


def _star(figure: Mapping[str, Any]) -> str:
    return "*" if figure["independent"] is None and figure["mean"] is not None else ""


def _headline(card: Card, transport: str) -> Interval | None:
    return _chosen(card["results"]["dodging"][transport])


# Details


def _detail(card: Card, cards: Sequence[Card]) -> dict[str, Any]:
    """What the page shows of one card beside the tables."""
    usable = [record for record in card["records"] if not record["failure"]]
    failures = [record for record in card["records"] if record["failure"]]
    limits = {judge["name"]: judge["threshold"]["cosine"] for judge in card["judges"]}
    still = {
        number: names
        for number, record in enumerate(card["records"])
        if not record["failure"] and (names := still_recognised(record, limits))
    }
    shown = [(card["records"][example["record"]], example) for example in card["examples"]]
    return {
        "card": card,
        "label": label(card, cards),
        "histograms": [plots.similarities(judge, usable) for judge in card["judges"]],
        "trade_offs": plots.trade_offs(card),
        "failures": failures[:_LISTED],
        "more_failures": max(0, len(failures) - _LISTED),
        "still": [(card["records"][number]["protected"], names) for number, names in list(still.items())[:_LISTED]],
        "still_count": len(still),
        "recognised": [
            (record, still[example["record"]], example) for record, example in shown if example["record"] in still
        ],
        "dodged": [(record, example) for record, example in shown if example["record"] not in still],
        "limits": limits,
    }
