"""Write tables and plots of README and docs from the result cards.

    python benchmarks/render.py [--check] [--take CARD ...]

Everything between ``<!-- results:NAME -->`` and ``<!-- end -->`` is replaced. With --check nothing is written, and the
exit code says whether all documents are what the cards say. --take copies finished cards to ``benchmarks/results``
first, without their pictures: the faces are other people's.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bauta.benchmark.adaptive import page as adaptive_page
from bauta.benchmark.adaptive.cards import AdaptiveCard
from bauta.benchmark.adaptive.recipe import read_recipe
from bauta.benchmark.budgets.cards import BudgetCard
from bauta.benchmark.budgets.recipe import read_recipe as read_budgets
from bauta.benchmark.budgets.run import Budgets
from bauta.benchmark.cancelable.cards import CancelableCard
from bauta.benchmark.cancelable.recipe import read_recipe as read_cancelable
from bauta.benchmark.cancelable.run import Cancelable
from bauta.benchmark.engine import cards
from bauta.benchmark.engine.table import Table, markdown
from bauta.benchmark.photos.cards import PhotoCard
from bauta.benchmark.photos.page import Photos
from bauta.benchmark.photos.recipe import read_recipe as read_runs
from bauta.benchmark.recognition import Recognizers
from bauta.errors import every_error

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PICTURE_FOLDER = ROOT / "docs" / "images"
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
RECIPES = ("unnoticed", "portraits", "makeup", "p3-mask", "lfw", "surrogates", "robustness", "visibility")
LABELS = {
    "default": "**`tip-im`, as it is installed**",
    "combined": "the same, `--mode combined`",
    "public": "four public surrogates",
}
OLD_ROWS = (
    ("default", "four public surrogates, all pairs, an earlier version"),
    ("paper", "`preset=paper`, one surrogate, an earlier version"),
)


def card(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def percent(interval: dict[str, float]) -> str:
    return f"{100 * interval['mean']:.1f} ({100 * interval['low']:.1f}-{100 * interval['high']:.1f})"


def main_table() -> str:
    """TIP-IM as it is installed, in its other mode and with other surrogates; and rows of an earlier version."""
    lines = [
        "| | pairs | dodging, mean of judges | worst judge | lossless | JPEG 75 | half size | blur "
        "| matches a target (before) | PSNR, SSIM of the mask | of the saved file |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, label in LABELS.items():
        results = cards.read_card(RESULTS / f"lfw-{name}.json", PhotoCard)["results"]
        dodging, quality = results["dodging"], results["quality"]
        worst, least = worst_judge(dodging)
        means = [f"{100 * dodging[at]['mean']['mean']:.1f}" for at in ("lossless", "jpeg-75", "half-size", "blur")]
        target = "-"
        if name == "combined":
            target = f"{percent(results['matches_target'])} ({100 * results['matches_target_before']['mean']:.0f})"
        seen = [
            f"{quality[f'psnr{where}']['mean']:.1f} dB, {quality[f'ssim{where}']['mean']:.3f}"
            for where in ("", "_saved")
        ]
        lines.append(
            f"| {label} | {results['usable']} | {percent(dodging['saved']['mean'])} "
            f"| {worst} {percent(least)} | {' | '.join([*means, target, *seen])} |"
        )
    return "\n".join([*lines, *(old_row(*row) for row in OLD_ROWS)])


def old_row(name: str, label: str) -> str:
    """A row from a card of a runner that is gone; the card names its commit."""
    results = card(f"tip-im-lfw-{name}")["results"]
    dodging, before = results["dodging"], 100 * results["impersonation_before"]["mean"]
    worst, least = worst_judge(dodging)
    means = [
        f"{100 * dodging[at]['mean']['mean']:.1f}" if at in dodging else "-"
        for at in ("lossless", "jpeg-75", "half-size", "blur")
    ]
    target = "-" if name == "default" else f"{percent(results['impersonation'])} ({before:.0f})"
    seen = [f"{results[f'psnr{at}']['mean']:.1f} dB, {results[f'ssim{at}']['mean']:.3f}" for at in ("", "_saved")]
    return (
        f"| {label} | {results['usable']} | {percent(dodging['saved']['mean'])} | {worst} {percent(least)} "
        f"| {' | '.join([*means, target, *seen])} |"
    )


def worst_judge(dodging: dict[str, Any]) -> tuple[str, dict[str, float]]:
    """The judge of the saved photo that is fooled least, and how often it is."""
    judges: dict[str, dict[str, float]] = dodging["saved"]["judges"]
    return min(judges.items(), key=lambda judge: judge[1]["mean"])


def recipe_tables(name: str) -> str:
    """All tables of the cards of a recipe, in its order."""
    paths = [RESULTS / f"{name}-{row.name}.json" for row in read_runs(name).rows]
    found = [cards.read_card(path, PhotoCard) for path in paths if path.exists()]
    return markdown(Photos().tables(found), Photos().notes(found)) if found else "Not measured yet."


def public_recognizers_table() -> str:
    """Accuracy of public recognisers on clean faces, beside what is stated of them."""
    return spaced(*Recognizers().tables([card("recognizers-public")]))


def spaced(table: Table) -> str:
    """A table with blanks about its rule."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (table.header, ["---"] * len(table.header), *table.rows))


def recognizers_table() -> str:
    """Accuracy of recognisers on clean faces, and what one costs as a surrogate."""
    (table,) = Recognizers().tables([card("recognizers")])
    cost = card("surrogate-speed")["forward_backward_over_dlib"]
    rows = [(*row, str(cost.get(row[0], "-"))) for row in table.rows]
    return Table("", (*table.header, "forward and backward over dlib's"), rows).markdown()


def sets_table() -> str:
    """Ensembles: cost and focal diversity."""
    cost = card("surrogate-speed")["sets"]
    lines = ["| set | forward and backward over dlib's | focal diversity |", "|---|---|---|"]
    for path in sorted(RESULTS.glob("focal-diversity-*.json")):
        found = card(path.stem)
        names = ",".join(one["name"] for one in found["recognizers"])
        diversity = ", ".join(f"{name} {value:.3f}" for name, value in found["focal_diversity"].items())
        lines.append(f"| {names.replace(',', ', ')} | {cost.get(names, '-')} | {diversity} |")
    return "\n".join(lines)


def readme_table() -> str:
    """What a newcomer wants to know: how often, how it holds, and what it costs the picture."""
    rows = {
        "unnoticed-default": "**default**",
        "unnoticed-high": "`--strength high`",
        "lfw-default": "`--method tip-im`",
        "lfw-blur": "for comparison: a blurred face",
        "lfw-pixelate": "for comparison: a pixelated face",
    }
    lines = ["| | not matched; worst judge | half size, then JPEG 75 | moved; lightness |", "|---|---|---|---|"]
    for name, label in rows.items():
        results = cards.read_card(RESULTS / f"{name}.json", PhotoCard)["results"]
        dodging = results["dodging"]
        _, least = worst_judge(dodging)
        saved, shared = (100 * dodging[at]["mean"]["mean"] for at in ("saved", "half-size+jpeg-75"))
        lines.append(
            f"| {label} | {saved:.0f} %; {100 * least['mean']:.0f} % | {shared:.0f} % | {_seen(results['quality'])} |"
        )
    return "\n".join(lines)


def _seen(quality: dict[str, Any]) -> str:
    if moved := quality.get("displacement"):
        return f"{moved['mean']:.1f} %; {quality['lightness_psnr']['mean']:.0f} dB"
    return f"-; {quality['psnr']['mean']:.0f} dB, all colours"


def both_table() -> str:
    """What becomes of the match when one photo of a pair is protected, the other, or both."""
    labels = {"probe-protected": "one", "gallery-protected": "the other", "both-protected": "both, in one run"}
    lines = ["| protected | `spatial`, default | `tip-im`, default |", "|---|---|---|"]
    found = [
        cards.read_card(RESULTS / f"{name}.json", PhotoCard)["results"]["cells"]
        for name in ("unnoticed-default", "lfw-default")
    ]
    lines += [
        f"| {label} | {' | '.join(percent(one[cell]['mean']) for one in found)} |" for cell, label in labels.items()
    ]
    return "\n".join(lines)


GROUPS = {
    "ma": "men", "wo": "women", "B": "Black", "E": "East Asian", "I": "Indian", "L": "Latino", "M": "Middle Eastern",
    "P": "Pacific islander", "S": "Southeast Asian", "W": "white",
}  # fmt: skip
"""What the names of the synthetic portraits begin with: ``maS-120_13`` shows a Southeast Asian man."""


def portrait_groups_table() -> str:
    """Dodging against the own original, by group."""
    found = cards.read_card(RESULTS / "portraits-default.json", PhotoCard)
    limits = {judge["name"]: judge["threshold"]["cosine"] for judge in found["judges"]}
    shares: dict[str, list[float]] = {}
    for record in found["records"]:
        name, cosines = Path(record["protected"]).name, record["after"]["saved"]
        dodged = [cosines[judge] < limit for judge, limit in limits.items()]
        for group in (name[:2], name[2]):
            shares.setdefault(GROUPS[group], []).append(sum(dodged) / len(dodged))
    lines = ["| | portraits | default |", "|---|---|---|"]
    return "\n".join(
        [
            *lines,
            *(
                f"| {name} | {len(shares[name])} | {100 * sum(shares[name]) / len(shares[name]):.0f} |"
                for name in GROUPS.values()
            ),
        ]
    )


WOMEN = 21
"""People of the recipe `makeup` up to this one are women, as they are publicly known; the others are men."""


def makeup_people_table() -> str:
    """Dodging with makeup, with the mask beneath it, and with makeup alone, of men and women apart."""
    runs = read_runs("makeup")
    women = set(runs.dataset.only[:WOMEN])
    columns: list[str] = []
    cells: dict[str, list[str]] = {"men": [], "women": []}
    for row in runs.rows:
        path = RESULTS / f"makeup-{row.name}.json"
        if not path.exists():
            continue
        found = cards.read_card(path, PhotoCard)
        columns.append(row.name)
        limits = {judge["name"]: judge["threshold"]["cosine"] for judge in found["judges"]}
        for group, own in cells.items():
            records = [
                record
                for record in found["records"]
                if not record["failure"] and (record["subject"] in women) == (group == "women")
            ]
            by_pair = [
                [
                    record["after"]["saved"][judge] < limit
                    for judge, limit in limits.items()
                    if record["before"][judge] >= limit
                ]
                for record in records
            ]
            hits = [hit for one in by_pair for hit in one]
            own.append(f"{100 * sum(hits) / len(hits):.0f} ({len(records)})")
    if not columns:
        return "Not measured yet."
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    return "\n".join([*lines, *(f"| {group} | {' | '.join(own)} |" for group, own in cells.items())])


def makeup_looks_table() -> str:
    """What the ruler of makeup says of synthetic portraits."""
    path = RESULTS / "makeup-looks.json"
    if not path.exists():
        return "Not measured yet."
    looks = json.loads(path.read_text(encoding="utf-8"))["looks"]
    columns = {
        "lips": "lips", "lids": "lids", "skin": "skin", "elsewhere": "elsewhere", "strange": "strange colours",
        "structure": "structure", "edges": "edges",
    }  # fmt: skip
    lines = ["| look | portraits | " + " | ".join(columns.values()) + " |", "|---|---|" + "---|" * len(columns)]
    for look, rows in looks.items():
        cells = []
        for column in columns:
            values = [row[column] for row in rows if row[column] == row[column]]
            mean = sum(values) / len(values)
            cells.append(f"{100 * mean:.1f} %" if column == "strange" else f"{mean:.2f}")
        lines.append(f"| {look} | {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def curve_table() -> str:
    """Success against visibility."""
    lines = [
        "| floor asked | pairs | PSNR | SSIM | dodging, mean of judges | worst judge | half size, then JPEG 75 |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in read_runs("visibility").rows:
        results = cards.read_card(RESULTS / f"visibility-{row.name}.json", PhotoCard)["results"]
        dodging, quality = results["dodging"], results["quality"]
        worst, least = worst_judge(dodging)
        lines.append(
            f"| {row.name.replace('-', ' ')} | {results['usable']} | {quality['psnr']['mean']:.1f} | "
            f"{quality['ssim']['mean']:.3f} | {percent(dodging['saved']['mean'])} | {worst} {percent(least)} | "
            f"{percent(dodging['half-size+jpeg-75']['mean'])} |"
        )
    return "\n".join(lines)


def speed_table() -> str:
    """Ratios of the speed card."""
    if not (RESULTS / "tip-im-speed.json").exists():
        return ""
    speed = card("tip-im-speed")
    return "\n".join(
        [
            "| | |",
            "|---|---|",
            "| iteration over the bare forward and backward passes of the ensemble | "
            f"{speed['iteration_over_bare_ensemble']:.2f} x |",
            "| literal loop over ours, 10 targets, the same masks (largest difference "
            f"{speed['largest_difference']:.1g}) | {speed['literal_over_exact_at_10_targets']:.1f} x |",
            "| literal loop over ours with pruning, other masks, gain reached "
            f"{speed['gain_reached']['pruned']:.3f} for {speed['gain_reached']['literal']:.3f} | "
            f"{speed['literal_over_pruned_at_10_targets']:.1f} x |",
            f"| peak memory | {speed['peak_memory_mib']} MiB |",
        ]
    )


def template_tables(name: str) -> str:
    """What a face service stores: the cards of a recipe, in the order of its rows."""
    from bauta.benchmark.stores.page import Stores

    found, stores = template_cards(name), Stores()
    if not found:
        return "The cards are not here yet."
    return "\n" + markdown(stores.tables(found), stores.notes(found), titles=False) + "\n"


def cancelable_table(number: int) -> Callable[[], str]:
    """One of the tables of cancelable templates, of the cards that there are."""

    def table() -> str:
        paths = [RESULTS / f"cancelable-{row.name}.json" for row in read_cancelable("cancelable").rows]
        found = [cards.read_card(path, CancelableCard) for path in paths if path.exists()]
        return Cancelable().tables(found)[number].markdown() if found else "Not measured yet."

    return table


def privacy_table(title: str) -> Callable[[], str]:
    """One of the tables of budgets, of the cards that there are."""

    def table() -> str:
        paths = [RESULTS / f"budgets-{row.name}.json" for row in read_budgets("budgets").rows]
        found = [cards.read_card(path, BudgetCard) for path in paths if path.exists()]
        tables = [one for one in Budgets().tables(found) if one.title == title] if found else []
        return tables[0].markdown() if tables else "Not measured yet."

    return table


def small_audits_table() -> str:
    """What many releases show of small claims."""
    if not (RESULTS / "budget-audits.json").exists():
        return "Not measured yet."
    lines = [
        "| protector: values at epsilon | a value: claim | shown | a photo: claim | shown |",
        "|---|---|---|---|---|",
    ]
    for row in card("budget-audits")["rows"]:
        pairs = [f"{row[one]['claim']:g} | {row[one]['found']:.2f}" for one in ("value", "photo")]
        lines.append(f"| {row['mechanism']} | {' | '.join(pairs)} |")
    return "\n".join(lines)


def certify_table() -> str:
    """Certified answers, and how far the student is above its start."""
    from bauta.benchmark.certified.cards import CertifiedCard
    from bauta.benchmark.certified.recipe import read_recipe as read_certified
    from bauta.benchmark.certified.run import CertifiedAnswers

    paths = [RESULTS / f"certify-{row.name}.json" for row in read_certified("certify").rows]
    found = {path.stem: cards.read_card(path, CertifiedCard) for path in paths if path.exists()}
    if not found:
        return "Not measured yet."
    family = CertifiedAnswers()
    (table,) = family.tables(list(found.values()))
    lines = ["", "| the same pairs | base | student | difference in points |", "|---|---|---|---|"]
    for sigma in ("0.12", "0.18"):
        both = [found.get(f"certify-{who}-{sigma}") for who in ("base", "student")]
        for one in family.compare(*both) if all(both) else ():
            difference = one.difference
            mean, low, high = (f"{100 * value:+.0f}" for value in (difference.mean, difference.low, difference.high))
            shares = f"{100 * one.first:.0f} | {100 * one.second:.0f}"
            lines.append(f"| {one.name}, sigma {sigma} | {shares} | {mean} ({low} to {high}) |")
    return "\n".join([table.markdown(), *lines])


def smoothed_masks_table() -> str:
    """Who accepts clean and masked photos, with and without noise."""
    if not (RESULTS / "smoothed-masks.json").exists():
        return "Not measured yet."
    found = card("smoothed-masks")
    masks = found.get("masks", {"masked": found})  # a card of before has the default mask alone
    lines = [
        "| accepted by | clean | " + " | ".join(f"`{mask}`" for mask in masks) + " |",
        "|---" * (len(masks) + 2) + "|",
    ]
    for row in found["accepted"]["clean"]:
        counts = [found["accepted"][kind][row] for kind in ("clean", *masks)]
        name, _, noise = row.partition(", ")
        label = "four judges that were not attacked" if row == "judges" else f"`{name}`{noise and ', ' + noise}"
        lines.append(f"| {label} | " + " | ".join(f"{hits} of {of}" for hits, of in counts) + " |")
    lengths = [f"{min(mask['length']):.1f} to {max(mask['length']):.1f}" for mask in masks.values()]
    lines.append("| L2 length on the aligned crop | - | " + " | ".join(lengths) + " |")
    return "\n".join(lines)


def ranking_table(*names: str) -> str:
    """The rows of recipes with the same attackers in one table, the least recovered first."""
    from bauta.benchmark.stores.page import RANKING_HEADER, ranking_rows

    found = ranking_rows([card for name in names for card in template_cards(name)])
    return Table("", RANKING_HEADER, found).markdown() if found else "The cards are not here yet."


def steps_table() -> str:
    """What shares and steps leave of accuracy."""
    found = card("mixture-steps")
    lines = [
        f"| share of the face, {found['faces']} faces | power of the others | steps | loss, one-sided | two-sided |"
        " cosine to the face's template, least |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["settings"]:
        names = {1: "all: the mean with its mirror image", 0: "as learned from"}
        share = names.get(row["stored_share"], f"{row['stored_share']:g}")
        losses = f"{row['loss_one_sided']:.2f} | {row['loss_two_sided']:.2f}"
        agreement = f"{row['agreement']:.2f}, {row['least_agreement']:.2f}"
        lines.append(f"| {share} | {row['power_of_others']:.1f} | {row['steps']} | {losses} | {agreement} |")
    return "\n".join(lines)


def budget_table() -> str:
    """What recognisers that nobody named lose, and what is drawn, at several budgets of the optimised mode."""
    found = card("local-features-budget")
    lines = [
        f"| `epsilon`, {found['faces']} faces | loss, one-sided | two-sided | cosine to the photo | of the way to it |",
        "|---|---|---|---|---|",
    ]
    for row in found["settings"]:
        losses = f"{row['loss_one_sided']:.2f} | {row['loss_two_sided']:.2f}"
        lines.append(f"| {row['epsilon']:g} | {losses} | {row['agreement']:.3f} | {100 * row['drawn']:.1f} % |")
    return "\n".join(lines)


def advface_budget_table() -> str:
    """What AdvFace's budget, steps and looks leave of accuracy, and of the face."""
    found = card("advface-budget")
    people, faces = found["tested"]
    lines = [
        f"| `epsilon`, {faces} faces of {people} people | `iterations` | look every | loss, one- and two-sided | d' |"
        " cosine to the template | known and unknown decoder: passes | cosine to the person | SSIM |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    clean = found["unprotected"]
    for row in (clean, *found["settings"]):
        passes, cosines, similar = (
            [row[f"{name}_{what}"] for name in ("known", "unknown")] for what in ("passes", "cosine", "ssim")
        )
        decoded = [
            ", ".join(f"{100 * one:.0f}" for one in passes) + " %",
            ", ".join(f"{one:.2f}" for one in cosines),
            ", ".join(f"{one:.3f}" for one in similar),
        ]
        if row is clean:
            cells = ["not protected", "", "", "", f"{row['distance']:.2f}", ""]
        else:
            every = row["identity_every"] if row["identity_every"] < row["iterations"] else "never"
            losses = f"{row['loss_one_sided']:.2f}, {row['loss_two_sided']:.2f}"
            distances = f"{row['distance_one_sided']:.2f}, {row['distance_two_sided']:.2f}"
            agreement = f"{row['agreement']:.3f}"
            cells = [f"{row['epsilon']:g}", str(row["iterations"]), str(every), losses, distances, agreement]
        lines.append(f"| {' | '.join([*cells, *decoded])} |")
    return "\n".join(lines)


def pictures_table() -> str:
    """How well recognisers tell whose the pictures of stored mixtures are."""
    found = card("mixture-pictures")
    names = list(found["changes"][0]["by"])
    lines = [
        f"| the stem's picture, {found['victims']} victims | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
    ]
    cells = [[f"{row['by'][name]['auroc']:.2f}" for name in names] for row in found["changes"]]
    lines += [f"| {row['change']} | {' | '.join(one)} |" for row, one in zip(found["changes"], cells, strict=True)]
    return "\n".join(lines)


def template_cards(name: str) -> list[dict[str, Any]]:
    from bauta.benchmark.stores.cards import StoreCard
    from bauta.benchmark.stores.recipe import read_template_recipe

    paths = [RESULTS / f"{name}-{row.name}.json" for row in read_template_recipe(name).rows]
    return [cards.read_card(path, StoreCard) for path in paths if path.exists()]


def adaptive_table(table: Callable[[list[dict[str, Any]]], Table], *, but: tuple[str, ...] = ()) -> str:
    """One of the tables of the adaptive cards, in the order of the recipe's rows, but for some of them."""
    paths = [RESULTS / f"adaptive-lfw-{row.name}.json" for row in read_recipe("lfw").rows if row.name not in but]
    if missing := [path.name for path in paths if not path.exists()]:
        return f"Not measured yet: {', '.join(missing)}."
    return spaced(table([cards.read_card(path, AdaptiveCard) for path in paths]))


def errors_table() -> str:
    """Every error with its codes, from the tree."""
    lines = ["| code | exit code | class | meaning |", "|---|---|---|---|"]
    for error in every_error():
        meaning = (error.__doc__ or "").partition("\n")[0].rstrip(".")
        lines.append(f"| `{error.code}` | {error.exit_code} | `{error.__name__}` | {meaning} |")
    return "\n".join(lines)


def share(counted: dict[str, int] | None) -> str:
    """97.5 (195 of 200)."""
    if not counted:
        return "-"
    return f"{100 * counted['found'] / counted['of']:.1f} ({counted['found']} of {counted['of']})"


def faces_table() -> str:
    """Which faces each detector finds, and what it takes for one."""
    found = card("finding-faces")
    count = found["false_faces"]["pictures"]["reported"]
    kinds = ("upright, from 40 px", "turned, from 40 px", "upright, under 40 px", "turned, under 40 px")
    lines = [
        f"| | {' | '.join(kinds)} "
        f"| pictures of {count} without people with a false face | false faces in the scenes | s a megapixel, 12 MP |",
        "|---" * 8 + "|",
    ]
    for name, scenes in found["scenes"].items():
        wrong = found["false_faces"]["detectors"][name]["reported"]
        cells = [share(scenes["recall"].get(kind)) for kind in kinds]
        cells += [str(len(wrong)), str(scenes["false"])]
        lines.append(f"| {name} | {' | '.join(cells)} | {found['speed'][name]['12'] / 12:.3f} |")
    return "\n".join(lines)


def groups_table() -> str:
    """False matches and missed matches of men and of women, at the thresholds of verdicts."""
    found = card("groups")["recognition"]
    groups = list(next(iter(found.values()))["cfp"])
    lines = [
        f"| | {' | '.join(f'{group}: FMR | {group}: FNMR' for group in groups)} |",
        "|---" * (2 * len(groups) + 1) + "|",
    ]
    for name, one in found.items():
        cells = [rate(one["cfp"][group][kind]) for group in groups for kind in ("fmr", "fnmr")]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    people = (f"{found['mobilenet']['cfp'][group]['people']} people" for group in groups)
    return "\n".join([*lines, f"| | {' | | '.join(people)} | |"])


def rate(one: dict[str, float]) -> str:
    """A share with its interval, in per cent."""
    return f"{100 * one['mean']:.1f} ({100 * one['low']:.1f}-{100 * one['high']:.1f})"


def groups_portraits_table() -> str:
    """Pairs of synthetic portraits of a group that match."""
    found = card("groups")["recognition"]
    seen = card("groups")["detection"]
    lines = [
        f"| | portraits | pairs | {' | '.join(f'`{name}`' for name in found)} | found upright | found turned |",
        "|---" * (len(found) + 5) + "|",
    ]
    for group, first in found["mobilenet"]["portraits"].items():
        cells = [str(first["portraits"]), str(first["pairs"])]
        for one in found.values():
            counted = one["portraits"][group]
            cells.append(f"{100 * counted['matching'] / max(counted['pairs'], 1):.1f} ({counted['matching']})")
        cells += [share(seen[group][kind]) if group in seen else "" for kind in ("upright", "turned")]
        lines.append(f"| {group} | {' | '.join(cells)} |")
    return "\n".join(lines)


def faces_by_size_table() -> str:
    """Recall by the face's height and by its angle."""
    names = list(card("finding-faces")["scenes"])
    names = [names[0], names[-1]]
    lines = [f"| | {' | '.join(names)} |", "|---|---|---|"]
    recall = [card("finding-faces")["scenes"][name]["recall"] for name in names]
    kinds = sorted(
        (kind for kind in recall[0] if kind.endswith("px") and "40 px" not in kind.replace(", 40 px", "")),
        key=lambda kind: (kind.split(",")[0] != "upright", int(kind.split()[1])),
    )
    kinds += sorted((kind for kind in recall[0] if kind.startswith("angle")), key=lambda kind: int(kind.split()[1]))
    for kind in kinds:
        label = f"from 40 px, turned by {kind.split()[1]} degrees" if kind.startswith("angle") else kind
        lines.append(f"| {label} | {' | '.join(share(one.get(kind)) for one in recall)} |")
    return "\n".join(lines)


def faces_speed_table() -> str:
    """Seconds of one core for the same photo in three sizes."""
    found = card("finding-faces")["speed"]
    sizes = list(next(iter(found.values())))
    lines = [f"| | {' | '.join(f'{size} megapixels' for size in sizes)} |", "|---" * (len(sizes) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(f'{taken[size]:.2f}' for size in sizes)} |" for name, taken in found.items()]
    return "\n".join(lines)


def false_faces_table() -> str:
    """In which pictures without people a face was found."""
    found = card("finding-faces")["false_faces"]
    lines = ["| | pictures to report on | pictures of development |", "|---|---|---|"]
    for name, kinds in found["detectors"].items():
        cells = [
            f"{len(kinds[kind])} of {found['pictures'][kind]}: "
            + (", ".join(f"{one['picture']} ({one['faces']})" for one in kinds[kind]) or "none")
            for kind in ("reported", "development")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def encrypted_table() -> str:
    """Encrypted matching by size of the gallery."""
    from bauta.benchmark.encrypted.run import EncryptedMatching

    cards = [card(f"encrypted-{name}") for name in ("1k", "10k", "100k", "100k-2", "1m")]
    return "\n\n".join(one.markdown() for one in EncryptedMatching().tables(cards))


def gallery_store_table() -> str:
    """What the gallery's store takes: one by one, in bulk, at a start, in a search."""
    found = json.loads((RESULTS / "gallery-store.json").read_text(encoding="utf-8"))["results"]
    header = ("enrolled one by one", "a second", "processor, ms each", "an erasure, ms", "one commit alone, ms")
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for name, called in (("full", "waiting for the disk (default)"), ("normal", "not waiting")):
        row = found[name]
        commit = f"{found['commit_ms']:.0f}" if name == "full" else "-"
        lines.append(
            f"| {called} | {row['a_second']:.0f} | {row['cpu_ms_each']:.1f} | {row['erase_ms']:.0f} | {commit} |"
        )
    header = (
        "people",
        "enrolled in bulk, a second (processor, us each)",
        "cold start, s (processor)",
        "search, ms (processor)",
        "in 8 bits, ms (processor)",
        "bytes each on disk",
        "GB memory",
    )
    lines += ["", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += [
        f"| {row['people']:,} | {row['enrolled_a_second']:.0f} ({row['enrol_cpu_us_each']:.0f}) "
        f"| {row['cold_start_seconds']:.0f} ({row['cold_start_cpu']:.0f}) "
        f"| {row['search_ms']:.0f} ({row['search_cpu_ms']:.0f}) | {row['faiss_ms']:.0f} ({row['faiss_cpu_ms']:.0f}) "
        f"| {row['bytes_each']:.0f} | {row['peak_bytes'] / 1e9:.1f} |"
        for row in found["bulk"]
    ]
    return "\n".join(lines)


def service_soak_table() -> str:
    """What became of the service under mixed requests."""
    found = json.loads((RESULTS / "service-soak.json").read_text(encoding="utf-8"))["results"]
    failed = sum(times for status, times in found["statuses"].items() if status.startswith("5"))
    early, late = (found[name] / 1e6 for name in ("resident_early", "resident_late"))
    header = (
        "minutes",
        "requests",
        "answered 5xx",
        "wrong answers",
        "memory, MB: early, late",
        "processor, ms: a read, a match",
    )
    row = (
        f"{found['minutes']:g}",
        f"{found['requests']:,}",
        f"{failed}",
        f"{found['wrong_answers']}",
        f"{early:.0f}, {late:.0f} ({found['growth']:+.1%})",
        f"{found['read_cpu_ms']:.1f}, {found['match_cpu_ms']:.1f}",
    )
    return "\n".join(["| " + " | ".join(header) + " |", "|" + "---|" * len(header), "| " + " | ".join(row) + " |"])


def p3_attacks_table() -> str:
    """What holders of pairs, or of many protected photos, get of a personalised mask."""
    found = json.loads((RESULTS / "p3-attacks.json").read_text(encoding="utf-8"))
    lines = ["| what is compared with clean photos of the person | matched |", "|---|---|"]
    lines += [f"| {name} | {value:.1f} % |" for name, value in found["matched_percent"].items()]
    return "\n".join(lines)


VIDEO_ROWS = {
    "clean": "as it was",
    "blur": "blurred",
    "tracked": "**default mask, carried along**",
    "makeup": "`makeup`, carried along",
    "p3-mask": "`p3-mask`",
    "each-frame": "default mask of photos, made anew for each frame",
}


def video_table() -> str:
    """What the best frame of a clip gives an attacker, how much a mask flickers, and how long it takes; by judge."""
    from bauta.benchmark.video.cards import VideoCard
    from bauta.benchmark.video.run import Clips

    paths = {label: RESULTS / f"video-{name}.json" for name, label in VIDEO_ROWS.items()}
    found = [cards.read_card(path, VideoCard) for path in paths.values() if path.exists()]
    if not found:
        return "Not measured yet."
    labels = [label for label, path in paths.items() if path.exists()]
    parts = []
    for table in Clips().tables(found):
        rows = [(label, *row[1:]) for label, row in zip(labels, table.rows, strict=True)]
        parts += [table.note, Table("", ("", *table.header[1:]), rows).markdown()]
    return "\n\n".join(parts)


def erasable_table() -> str:
    """What comes back of masked photos with the key, without it, and after a network saved them anew."""
    found = json.loads((RESULTS / "erasable.json").read_text(encoding="utf-8"))
    forms = list(found["matched"])
    lines = ["| | " + " | ".join(f"{form}: matched; least" for form in forms) + " |", "|---|" + "---|" * len(forms)]

    def cell(form: str, name: str) -> str:
        values = found["matched"][form][name]
        return f"{100 * sum(values) / len(values):.0f}; {100 * min(values):.0f}"

    names = list(found["matched"][forms[0]])
    lines += [f"| {name} | " + " | ".join(cell(form, name) for form in forms) + " |" for name in names]
    least = found["least_psnr"]
    kept = [f"from {least[form]:.0f} dB on" if form in least else f"{found['bit_exact'][form]:.0%}" for form in forms]
    lines.append("| regions that came back bit for bit, or how near | " + " | ".join(kept) + " |")
    shares = [f"{found['sealed_share_of_file'][form]:.0%}" for form in forms]
    lines.append("| sealed part, share of the file without it | " + " | ".join(shares) + " |")
    tried = len(forms) * found["pairs"]
    lines.append(f"| opened by another key | {found['opened_by_another_key']} of {tried} |" + " |" * (len(forms) - 1))
    return "\n".join(lines)


def four_targets_table() -> str:
    """How often protected photos match the person they were moved towards, and still their own."""
    card = json.loads((RESULTS / "four-targets.json").read_text(encoding="utf-8"))
    lines = [
        "| row | matches the target; by judge | by target | still matches the person; by judge |",
        "|---|---|---|---|",
    ]

    def cell(values: list[float]) -> str:
        shares = ", ".join(f"{100 * value:.0f}" for value in values)
        return f"**{100 * sum(values) / len(values):.0f} %**; {shares}"

    for row, values in card["matches_target"].items():
        targets = ", ".join(f"{100 * value:.0f}" for value in card["by_target"][row])
        lines.append(f"| {row} | {cell(values)} | {targets} | {cell(card['matches_themselves'][row])} |")
    lines.append(f"\nJudges in this order: {', '.join(f'`{name}`' for name in card['judges'])}; ")
    lines[-1] += (
        f"{card['sources']} sources, {card['targets']} targets, {card['sources'] * card['targets']} photos a row."
    )
    return "\n".join(lines)


def p3_searching_table() -> str:
    """How often photos that were saved anew match the person again once their masks were searched."""
    found = json.loads((RESULTS / "p3-searching.json").read_text(encoding="utf-8"))
    matched, masks = found["matched_percent"], found["found_percent"]
    ways = [name.removesuffix(": protected") for name in matched if name.endswith(": protected")]
    lines = ["| saved anew as | matched, masked | restored | by another's mask | a mask was found | by another's |"]
    lines.append("|---|---|---|---|---|---|")
    for way in ways:
        cells = [matched[f"{way}: {name}"] for name in ("protected", "restored", "wrong mask")]
        cells += [masks[f"{way}: {name}"] for name in ("restored", "wrong mask")]
        lines.append(f"| {way} | " + " | ".join(f"{value:.0f} %" for value in cells) + " |")
    lines.append(f"\nClean photos match in {matched['clean']:.0f} %; {len(found['people'])} people, ")
    lines[-1] += f"{found['photos']} photos each."
    return "\n".join(lines)


def watermark_table() -> str:
    """What a marked face hides and says, beside its parts and after attacks."""
    card = json.loads((RESULTS / "watermark.json").read_text(encoding="utf-8"))
    dodging, found = card["dodging"], card["found"]
    lines = ["| row | not matched; worst judge | bits | message read |", "|---|---|---|---|"]
    for row, values in dodging.items():
        cell = f"{100 * sum(values) / len(values):.0f} %; {100 * min(values):.0f} %"
        counts = found.get(row)
        ways = [name.removesuffix(": bits") for name in counts if name.endswith(": bits")] if counts else []
        if not counts:
            lines.append(f"| {row} | {cell} | - | - |")
        for way in ways:
            name = row if way == "saved" else f"{row}, {way}"
            bits, read = counts[f"{way}: bits"], counts[f"{way}: read"]
            lines.append(f"| {name} | {cell if way == 'saved' else ''} | {bits:.1%} | {read:.0%} |")
    lines += ["", "| | messages read |", "|---|---|"]
    for name, said in (
        ("with another key", "another_key"),
        ("clean faces", "clean_faces"),
        ("the mean of ten differences taken off", "read_after_removal"),
        ("that mean laid on clean faces of others", "read_when_copied"),
        ("the mark of one photo laid on a face of another", "read_when_one_is_copied"),
    ):
        lines.append(f"| {name} | {card[said][0]} of {card[said][1]} |")
    return "\n".join(lines)


TABLES = {
    "video": video_table,
    "p3-attacks": p3_attacks_table,
    "certify": certify_table,
    "smoothed-masks": smoothed_masks_table,
    "watermark": watermark_table,
    "p3-searching": p3_searching_table,
    "erasable": erasable_table,
    "four-targets": four_targets_table,
    "errors": errors_table,
    "main": main_table,
    "readme": readme_table,
    "recognizers": recognizers_table,
    "recognizers-public": public_recognizers_table,
    "sets": sets_table,
    **{f"recipe-{name}": lambda name=name: recipe_tables(name) for name in RECIPES},
    "curve": curve_table,
    "both": both_table,
    "portrait-groups": portrait_groups_table,
    "makeup-people": makeup_people_table,
    "makeup-looks": makeup_looks_table,
    "speed": speed_table,
    "adaptive": lambda: adaptive_table(adaptive_page.main_table),
    "purifiers": lambda: adaptive_table(adaptive_page.purifier_table),
    "attackers": lambda: adaptive_table(adaptive_page.attacker_table, but=("spatial",)),
    "templates": lambda: template_tables("advface-small"),
    "template-settings": lambda: template_tables("advface-settings"),
    "template-accuracy": lambda: template_tables("advface-accuracy"),
    "template-shipped": lambda: template_tables("advface-shipped"),
    "template-full": lambda: template_tables("advface"),
    "keys": lambda: template_tables("keys"),
    "closed-form": lambda: template_tables("closed-form"),
    "steps": steps_table,
    "pictures": pictures_table,
    "budget": budget_table,
    "advface-budget": advface_budget_table,
    "hybrid": lambda: template_tables("hybrid-small"),
    "hybrid-shipped": lambda: template_tables("hybrid-shipped"),
    "hybrid-shipped-ranking": lambda: ranking_table("hybrid-shipped"),
    "local-features": lambda: template_tables("local-features-small"),
    "faces": faces_table,
    "groups": groups_table,
    "groups-portraits": groups_portraits_table,
    "faces-by-size": faces_by_size_table,
    "faces-speed": faces_speed_table,
    "faces-false": false_faces_table,
    "encrypted": encrypted_table,
    "gallery-store": gallery_store_table,
    "service-soak": service_soak_table,
    "cancelable": cancelable_table(0),
    "cancelable-linkage": cancelable_table(1),
    "cancelable-inversion": cancelable_table(2),
    "budgets": privacy_table("Recognition"),
    "budgets-recovered": privacy_table("Computed back"),
    "budgets-networks": privacy_table("Computed back by networks"),
    "budgets-audit": privacy_table("Audit"),
    "budget-audits": small_audits_table,
    "ranking": lambda: ranking_table("hybrid-small", "local-features-small"),
}


def trade_off(name: str) -> str:
    """Accuracy lost and SSIM recovered of the rows of a recipe, as a picture."""
    from bauta.benchmark.stores.page import trade_off_svg

    return trade_off_svg(template_cards(name))


PICTURES = {"masked-faces": lambda: trade_off("hybrid-small")}


def render(text: str) -> str:
    """A document with its tables replaced."""
    for name, table in TABLES.items():
        pattern = rf"(<!-- results:{name} -->\n).*?(<!-- end -->)"
        if not re.search(pattern, text, flags=re.DOTALL):
            continue
        text = re.sub(pattern, lambda match, table=table: f"{match[1]}{table()}\n{match[2]}", text, flags=re.DOTALL)
    return text


def take(path: Path) -> None:
    """Copy a card to the results, without pictures of faces."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if "examples" in content:
        cards.write_card({**content, "examples": []}, RESULTS / path.name)
    else:
        (RESULTS / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--take", type=Path, nargs="+", default=[], metavar="CARD")
    options = parser.parse_args()
    for path in options.take:
        take(path)
    changed = False
    for path in DOCUMENTS:
        before = path.read_text(encoding="utf-8")
        after = render(before)
        changed |= before != after
        if not options.check:
            path.write_text(after, encoding="utf-8")
    for name, picture in PICTURES.items():
        path = PICTURE_FOLDER / f"{name}.svg"
        drawn = picture()
        changed |= not path.exists() or path.read_text(encoding="utf-8") != drawn
        if not options.check:
            path.write_text(drawn, encoding="utf-8")
    return int(options.check and changed)


if __name__ == "__main__":
    raise SystemExit(main())
