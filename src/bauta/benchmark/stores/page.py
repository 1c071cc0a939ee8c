"""Template cards for people: tables, in plain text and Markdown, and a page with what attackers recover.

The page fetches no script, font or picture, and its content security policy forbids it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bauta.benchmark import plots
from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.compare import Difference
from bauta.benchmark.engine.table import Family, Table, label, percent, require_cards
from bauta.benchmark.stores.cards import StoreCard
from bauta.benchmark.stores.recipe import REFERENCES, SYSTEM
from bauta.benchmark.stores.results import compare, summarise
from bauta.errors import UsageError
from bauta.pages import page_template

HEADER = (
    "row", "accuracy, one-sided", "loss", "two-sided", "bytes", "of an image", "of a template", "ms to enrol",
    "strongest replay at the system", "on unseen recognisers", "linked face to template", "D_sys (null)",
)  # fmt: skip
RECOVERY_HEADER = (
    "row", "attacker", "adaptive", "victims", "SSIM", "PSNR, dB", "identity", "system, type I", "type II",
    "recogniser, type I", "type II",
    "unseen recognisers, type I", "type II",
)  # fmt: skip


def rows(cards: Sequence[Card]) -> list[tuple[str, ...]]:
    """The main table's cells, in the order of `HEADER`: percent with 95 % intervals, on the first evaluation set.

    Loss is clean less one-sided accuracy, pair by pair. Replay is the most successful attacker's at the lowest false
    match rate, for unseen recognisers the one that is fooled most. Linked is the accuracy of the strongest student.

    Raises:
        UsageError: when there is no card.
    """
    require_cards(cards)
    return [_cells(card, cards) for card in cards]


MODES = ("one-sided", "two-sided")
ACCURACY_HEADER = ("row", "set", "clean", "one-sided", "loss", "two-sided", "loss")


def accuracy_rows(cards: Sequence[Card]) -> list[tuple[str, ...]]:
    """Accuracy on every evaluation set, in the order of `ACCURACY_HEADER`, in percent with 95 % intervals."""
    return [
        (
            label(card, cards),
            name,
            percent(modes["clean"]["accuracy"]),
            *(cell for mode in MODES for cell in _accuracy_and_loss(modes[mode])),
        )
        for card in cards
        for name, modes in card["results"]["accuracy"].items()
    ]


BASELINE_HEADER = ("row", "set", "compared with", "one-sided loss", "two-sided loss")


def baseline_rows(cards: Sequence[Card]) -> list[tuple[str, ...]]:
    """What each row loses to the recogniser trained alike without protection, in percentage points, pair by pair."""
    return [
        (label(card, cards), name, card["results"]["baseline"]["row"], *(_points(loss[mode]) for mode in MODES))
        for card in cards
        if "baseline" in card["results"]
        for name, loss in card["results"]["baseline"]["loss"].items()
    ]


def recovery_rows(cards: Sequence[Card]) -> list[tuple[str, ...]]:
    """What each attacker recovered, in the order of `RECOVERY_HEADER`; references first, and once for all cards."""
    references = [name for name in REFERENCES if name in cards[0]["results"]["recovery"]]
    attacked = [
        (label(card, cards), attacker["name"], *_recovered(card, attacker["name"]))
        for card in cards
        for attacker in card["attackers"]
        if attacker["name"] in card["results"]["recovery"]
    ]
    return [("reference", name, *_recovered(cards[0], name)) for name in references] + attacked


def linkage_rows(cards: Sequence[Card]) -> list[tuple[str, ...]]:
    """What students link: row, student, face to template, template to template, AUROC of both, rank 1."""
    return [
        (
            label(card, cards),
            name,
            percent(one["face_template"]["accuracy"]),
            f"{one['face_template']['auroc']:.3f}",
            percent(one["template_template"]["accuracy"]),
            f"{one['template_template']['auroc']:.3f}",
            f"{percent(one['rank_1'])} of {one['gallery']}",
        )
        for card in cards
        for name, one in card["results"]["linkage"].items()
    ]


BLACK_BOX_HEADER = ("row", "set", "recogniser", "clean", "one-sided", "loss", "two-sided", "loss")


def black_box_rows(cards: Sequence[Card]) -> list[tuple[str, ...]]:
    """What recognisers that know of nothing make of stored images, and their mean loss, in percent."""
    found = []
    for card in cards:
        seen = card["results"].get("black_box", {"judges": {}, "mean_loss": {}})
        for judge, sets in seen["judges"].items():
            for name, modes in sets.items():
                shown = [cell for mode in MODES for cell in _accuracy_and_loss(modes[mode])]
                found.append((label(card, cards), name, judge, percent(modes["clean"]["accuracy"]), *shown))
        for name, losses in seen["mean_loss"].items():
            shown = [cell for mode in MODES for cell in ("-", _points(losses[mode]))]
            found.append((label(card, cards), name, "mean of all", "-", *shown))
    return found


TAR_HEADER = ("row", "set", "recogniser", "at FMR", "TAR, clean", "one-sided", "two-sided", "false matches, the same")


def tar_rows(cards: Sequence[Card]) -> list[tuple[str, ...]]:
    """True accept rate of recognisers that know of nothing on stored images, at their calibrated thresholds."""
    return [
        (
            label(card, cards),
            name,
            judge,
            fmr,
            *(percent(modes[mode]["tar"][fmr]) for mode in ("clean", *MODES)),
            # Cards of before false matches were counted say nothing of them.
            ", ".join(percent(modes[mode].get("false_matches", {}).get(fmr)) for mode in ("clean", *MODES)),
        )
        for card in cards
        for judge, sets in card["results"].get("black_box", {"judges": {}})["judges"].items()
        for name, modes in sets.items()
        for fmr in modes["clean"].get("tar", {})
    ]


KEY_HEADER = ("row", "attacker", "knows", "positions right", "TAR", "rank 1", "TAR with the key", "rank 1")


def key_rows(cards: Sequence[Card]) -> list[tuple[str, ...]]:
    """What attackers open with the key that they recovered, and the true key beside it."""
    return [
        (
            label(card, cards),
            name,
            one["knows"],
            "-" if one["positions"] is None else f"{100 * one['positions']:.1f}",
            *(percent(side[what]) for side in (one, found["true_key"]) for what in ("tar", "rank_1")),
        )
        for card in cards
        for name, found in card["results"].get("keys", {}).items()
        for one in found["tries"]
    ]


INVARIANTS_HEADER = (
    "row",
    "attacker",
    "known photo",
    "its row among all, rank 1",
    "AUROC",
    "in the store or not, AUROC",
)


def invariants_rows(cards: Sequence[Card]) -> list[tuple[str, ...]]:
    """What is linked without any key."""
    return [
        (
            label(card, cards),
            name,
            photo,
            f"{percent(one['rank_1'])} of {one['gallery']}",
            f"{one['auroc']:.3f}",
            f"{one['member_auroc']:.3f}",
        )
        for card in cards
        for name, photos in card["results"].get("invariants", {}).items()
        for photo, one in photos.items()
    ]


LINKAGE_HEADER = (
    "row", "student", "face to template", "AUROC", "template to template", "AUROC", "rank 1",
)  # fmt: skip


_BESIDE = ("original", "mean face")  # the pictures that are the same for every row

PRIVACY_HEADER = ("row", "attacker", "S1", "S2", "S3", "S4", "composite score")


def privacy_rows(cards: Sequence[Card]) -> list[tuple[str, ...]]:
    """The composite score of adaptive hybrid masking and its parts, in the order of `PRIVACY_HEADER`."""
    return [
        (
            label(card, cards),
            name,
            *(f"{one[part]['mean']:.3f}" for part in ("s1", "s2", "s3", "s4")),
            f"{one['score']['mean']:.3f} ({one['score']['low']:.3f} to {one['score']['high']:.3f})",
        )
        for card in cards
        for name, one in card["results"].get("privacy", {}).items()
    ]


RANKING_HEADER = (
    "row", "loss, one-sided", "two-sided", "SSIM recovered", "PSNR, dB", "replay, type I", "linked face to template",
    "bytes", "ms to enrol",
)  # fmt: skip


def ranking_rows(cards: Sequence[Card]) -> list[tuple[str, ...]]:
    """All rows in the order of what is recovered from them, each figure with its rank among them, 1 being the best.

    Loss is the mean over all evaluation sets, in points: to the baseline trained alike where there is one; of images
    that are for any recogniser, the mean loss of the judges to clean faces; otherwise that of the recogniser. Recovery
    is that of the learned attacker whom all rows met, replay the share of victims as whom his pictures pass at the
    judge that is fooled most. Linked is the accuracy of the best way to link, a student or the matcher itself.

    Returns:
        Rows in the order of `RANKING_HEADER`; none for fewer than three cards, or without an attacker in common.
    """
    attacker = _met_by_all(cards)
    if attacker is None:
        return []
    figures = [_ranked_figures(card, attacker) for card in cards]
    columns = [[one[place] for one in figures] for place in range(len(RANKING_HEADER) - 1)]
    places = [[1 + sum(other < value for other in column) for value in column] for column in columns]
    digits = (2, 2, 3, 1, 3, 3, 0, 0)
    order = sorted(range(len(cards)), key=lambda row: (figures[row][2], row))
    return [
        (
            label(cards[row], cards),
            *(f"{value:.{digits[place]}f} ({places[place][row]})" for place, value in enumerate(figures[row])),
        )
        for row in order
    ]


def trade_off(cards: Sequence[Card]) -> dict[str, Any] | None:
    """The two first figures of the ranking as `bauta.benchmark.plots.recovery_against_loss`, one-sided."""
    attacker = _met_by_all(cards)
    if attacker is None:
        return None
    found = [
        (label(card, cards), _ranked_figures(card, attacker)[0], card["results"]["recovery"][attacker]["ssim"])
        for card in cards
    ]
    mean_face = cards[0]["results"]["recovery"]["mean face"]["ssim"]["mean"]
    return plots.recovery_against_loss(found, mean_face) | {"attacker": attacker}


def trade_off_svg(cards: Sequence[Card]) -> str:
    """The same as a picture, complete in itself.

    Raises:
        UsageError: for fewer than three cards, or without an attacker in common.
    """
    drawn = trade_off(cards)
    if drawn is None:
        raise UsageError("These cards have no learned attacker in common.", hint="Give three rows of one recipe.")
    return page_template("benchmark", "trade_off.svg.j2").render(plot=drawn)


def _met_by_all(cards: Sequence[Card]) -> str | None:
    """The first learned attacker whom all rows met; None, too, for fewer than three."""
    met = [
        [one["name"] for one in card["attackers"] if one["adaptive"] and one["name"] in card["results"]["recovery"]]
        for card in cards
    ]
    common = [name for name in (met[0] if met else []) if all(name in names for names in met)]
    return common[0] if common and len(cards) >= 3 else None


def _ranked_figures(card: Card, attacker: str) -> tuple[float, ...]:
    """In the order of `RANKING_HEADER`, each the smaller the better."""
    results = card["results"]
    if "baseline" in results:
        compared = results["baseline"]["loss"]
    elif "black_box" in results:
        compared = results["black_box"]["mean_loss"]
    else:
        compared = {name: {mode: one[mode]["loss"] for mode in MODES} for name, one in results["accuracy"].items()}
    losses = [[100 * one[mode]["mean"] for one in compared.values()] for mode in MODES]
    found = results["recovery"][attacker]
    fmr = f"{min(card['fmrs']):g}"
    linked = [one["face_template"]["accuracy"]["mean"] for one in results["linkage"].values()]
    return (
        *(sum(one) / len(one) for one in losses),
        found["ssim"]["mean"],
        found["psnr"]["mean"] if found["psnr"] else math.inf,
        max(found["replay"][judge["name"]]["type_1"][fmr]["mean"] for judge in card["judges"]),
        max(linked, default=0.0),
        results["cost"]["bytes"],
        results["cost"]["milliseconds"]["enrol"],
    )


class Stores(Family):
    """Cards of what a face service stores."""

    record = StoreCard

    def figures(self, card: Card) -> Card:
        """See `summarise`."""
        limits = {name: {limit["fmr"]: limit for limit in found} for name, found in card["thresholds"].items()}
        return summarise(card["records"], limits, card["recognizer"]["name"], card["fmrs"])

    def tables(self, cards: Sequence[Card]) -> list[Table]:
        """Every table that has rows.

        Raises:
            UsageError: when there is no card.
        """
        every = (
            ("All in one, with ranks", RANKING_HEADER, ranking_rows),
            ("Does it still recognise, and what is it worth", HEADER, rows),
            ("How often it is right", ACCURACY_HEADER, accuracy_rows),
            ("What protection costs a recogniser trained alike", BASELINE_HEADER, baseline_rows),
            ("Do other recognisers accept the stored image", BLACK_BOX_HEADER, black_box_rows),
            ("How often they accept it at their threshold", TAR_HEADER, tar_rows),
            ("What a recovered key opens", KEY_HEADER, key_rows),
            ("What is linked without a key", INVARIANTS_HEADER, invariants_rows),
            ("What attackers recover", RECOVERY_HEADER, recovery_rows),
            ("What students link", LINKAGE_HEADER, linkage_rows),
            ("How private it is, in one number", PRIVACY_HEADER, privacy_rows),
        )
        found = [Table(title, header, make(cards)) for title, header, make in every]
        return [table for table in found if table.rows]

    def compare(self, first: Card, second: Card) -> list[Difference]:
        """See `compare`."""
        return compare(first, second)

    def notes(self, cards: Sequence[Card]) -> list[str]:
        """What readers of the tables must know, each once."""
        notes = [card["note"] for card in cards if card["note"]]
        first = cards[0]
        notes.append(
            f"Replay at FMR {min(first['fmrs']):g}: the share of victims as whom a recovered face passes. At the "
            "system it is compared with stored representations. Type I: of the enrolled image, or with it; type II: "
            "another photo."
        )
        notes.append("SSIM and PSNR say how a picture looks, not who it is: read them against the mean face.")
        if any("privacy" in card["results"] for card in cards):
            notes.append(
                "The composite score is that of adaptive hybrid masking, its parts read by us: S1, S2 what the stored "
                "numbers show (1 - SSIM, 1 - identity), S3, S4 what the attacker recovers; 0.4 and 0.6 of it."
            )
        if any("keys" in card["results"] for card in cards):
            notes.append(
                "TAR with a recovered key: the share of victims whose stored row, opened with it, matches another "
                "photo of them at the system's threshold. Rank 1: whose row finds that photo among the victims'."
            )
        if len({card["data"]["attacker"]["sha256"] for card in cards}) > 1:
            notes.append("Attackers of the rows learned from different faces: compare them with care.")
        return list(dict.fromkeys(notes))

    def page(self, cards: Sequence[Card]) -> str:
        """The page, complete in itself.

        Raises:
            UsageError: when there is no card.
        """
        return page_template("benchmark", "template_report.html.j2").render(
            cards=cards,
            tables=self.tables(cards),
            plot=trade_off(cards),
            gallery=gallery(cards),
            notes=self.notes(cards),
            details=[{"card": card, "label": label(card, cards)} for card in cards],
        )


def gallery(cards: Sequence[Card]) -> dict[str, Any] | None:
    """One victim as every row stores and attackers draw them, side by side.

    Returns:
        ``references``, pictures of the original and the mean face by name; ``columns``, names of the others; ``rows``
        of a label and a picture, or None, for each column. None when fewer than two cards show the same victim.
    """
    shown = [(card, card["examples"][0]["pictures"]) for card in cards if card["examples"]]
    if not shown:
        return None
    first = shown[0][1]
    shown = [(card, pictures) for card, pictures in shown if pictures["original"] == first["original"]]
    columns = list(dict.fromkeys(name for _, pictures in shown for name in pictures if name not in _BESIDE))
    rows = [(label(card, cards), [pictures.get(name) for name in columns]) for card, pictures in shown]
    references = {name: first[name] for name in _BESIDE}
    return {"references": references, "columns": columns, "rows": rows} if len(rows) > 1 else None


def _cells(card: Card, cards: Sequence[Card]) -> tuple[str, ...]:
    results = card["results"]
    accuracy = next(iter(results["accuracy"].values()))
    cost = results["cost"]
    strongest = results["irreversibility"]["by"]
    outside = [
        found for name, found in strongest.items() if name.partition(",")[0] not in (SYSTEM, card["recognizer"]["name"])
    ]
    students = [one["face_template"]["accuracy"] for one in results["linkage"].values()]
    linkability = results["unlinkability"]["key_stolen"]
    return (
        label(card, cards),
        percent(accuracy["one-sided"]["accuracy"]),
        _points(accuracy["one-sided"]["loss"]),
        percent(accuracy["two-sided"]["accuracy"]),
        str(cost["bytes"]),
        f"{cost['of_an_image']:.2f}",
        f"{cost['of_a_template']:.1f}",
        f"{cost['milliseconds']['enrol']:.0f}",
        _strongest([found for name, found in strongest.items() if name.startswith(f"{SYSTEM},")]),
        _strongest(outside),
        percent(max(students, key=lambda one: float(one["mean"]), default=None)),
        f"{linkability['system']:.3f} ({linkability['null']['mean']:.3f})",
    )


def _recovered(card: Card, name: str) -> tuple[str, ...]:
    found = card["results"]["recovery"][name]
    fmr = f"{min(card['fmrs']):g}"
    adaptive = {one["name"]: "yes" if one["adaptive"] else "no" for one in card["attackers"]}
    own = card["recognizer"]["name"]
    replay = found["replay"]
    others = [judge["name"] for judge in card["judges"]]

    def most(kind: str) -> str:
        return percent(max((replay[judge][kind][fmr] for judge in others), key=lambda one: float(one["mean"])))

    psnr = found["psnr"]
    return (
        adaptive.get(name, "-"),
        str(found["victims"]),
        f"{found['ssim']['mean']:.3f}",
        "-" if psnr is None else f"{psnr['mean']:.1f}",
        "-" if found["identity"] is None else f"{found['identity']['mean']:.3f}",
        percent(replay[SYSTEM]["type_1"][fmr]),
        percent(replay[SYSTEM]["type_2"][fmr]),
        percent(replay[own]["type_1"][fmr]),
        percent(replay[own]["type_2"][fmr]),
        most("type_1"),
        most("type_2"),
    )


def _accuracy_and_loss(mode: Mapping[str, Any]) -> tuple[str, str]:
    return percent(mode["accuracy"]), _points(mode["loss"])


def _strongest(found: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return "-"
    best = max(found, key=lambda one: float(one["mean"]))
    return f"{percent(best)} {best['attacker']}"


def _points(interval: Mapping[str, float]) -> str:
    """A difference of shares, in percentage points."""
    return f"{100 * interval['mean']:+.2f} ({100 * interval['low']:+.2f} to {100 * interval['high']:+.2f})"
