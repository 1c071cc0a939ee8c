"""Runs the rows of a recipe, batch by batch, so that it can go on; writes a card for each as soon as it is done.

What happens to a batch is in `bauta.benchmark.photos.measuring`; what is computed of all of them together here.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from bauta.benchmark.engine import cards
from bauta.benchmark.photos.cards import PhotoCard
from bauta.benchmark.photos.measuring import CROPS, Batch, Bench, Item, Outcome, Plan, Record, batch_name, digest
from bauta.benchmark.photos.recipe import Recipe, Row
from bauta.benchmark.photos.results import still_recognised, summarise
from bauta.benchmark.photos.search import Gallery, add_ranks, det_points, draw_strangers, embed_gallery
from bauta.cloaks.base import FitsPerson, load_cloak
from bauta.errors import BautaError, UnknownRecognizer, UsageError
from bauta.judging.lpips import Lpips
from bauta.judging.quality import set_quality
from bauta.progress import Progress, Steps, silent, steps_of
from bauta.recognizers import find_card, threshold
from bauta.recognizers.cards import taught_by

ORIGINAL, ANOTHER = "the original", "another photo"


def run_recipe(
    recipe: Recipe,
    data: Path | None,
    output: Path,
    *,
    work: Path | None = None,
    jobs: int = 1,
    examples: int = 0,
    lpips: Path | None = None,
    command: str = "",
    progress: Progress = silent,
) -> list[Path]:
    """Run every row of a recipe and write a card for each as soon as it is done.

    Args:
        recipe: What to run.
        data: Where its data set lies; None for toys.
        output: Folder of the cards, ``RECIPE-ROW.json``.
        work: Folder of finished batches; ``.work`` in the output folder by default.
        jobs: Worker processes; the figures do not depend on it.
        examples: Of how many faces a card keeps pictures, before and after, and of how many more that are still
            recognised.
        lpips: File of the weights of LPIPS; without it there is none in the cards.
        command: As it was given, for the cards.
        progress: Called with the row, the pairs done and the pairs there are.

    Returns:
        The cards' files.

    Raises:
        UsageError: when the data set or a method cannot be used, or no face is found.
        RecognizerError: when a recogniser cannot be used, or a judge has no threshold.
        OutputError: when a card cannot be written.
    """
    if jobs < 1 or examples < 0:
        raise UsageError(f"{jobs} jobs and {examples} examples make no sense.", hint="Give at least 1 job.")
    name, pairs = recipe.dataset.read(data)
    # Whatever is missing shows before anything is computed.
    facts = [_start(recipe, row, lpips) for row in recipe.rows]
    kept = work or output / ".work"
    gallery = None
    if recipe.gallery is not None:
        subjects = {pair.subject for pair in pairs}
        folder = recipe.gallery.folder(data)
        strangers = None if folder is None else draw_strangers(folder, recipe.gallery.people, subjects, recipe.seed)
        gallery = embed_gallery(strangers, recipe.judges, kept, progress)
    written = []
    for row, (plan, card) in zip(recipe.rows, facts, strict=True):
        limit = min(one for one in (row.pairs, recipe.pairs, len(pairs)) if one is not None)
        learns = issubclass(load_cloak(row.method), FitsPerson)
        items = [Item(pair, learned_from=pair.others or (pair.protected,) if learns else ()) for pair in pairs[:limit]]
        path = output / f"{recipe.name}-{row.name}.json"
        run_items(
            items, plan, card, name, path, batch=recipe.batch, work=kept, jobs=jobs, examples=examples,
            gallery=gallery, command=command, progress=steps_of(progress, row.name),
        )  # fmt: skip
        written.append(path)
    return written


def _start(recipe: Recipe, row: Row, lpips: Path | None) -> tuple[Plan, Record]:
    """The plan of a row, and the fields of its card that are known before it runs."""
    method = load_cloak(row.method)
    config, kind = method.configured(row.options).to_dict(), "reference" if method.card.reference else "cloak"
    surrogates = (
        (row.surrogates or recipe.surrogates) if "surrogates" in method.needs or issubclass(method, FitsPerson) else ()
    )
    plan = Plan(
        row.method, dict(row.options), surrogates, recipe.judges, recipe.transports, recipe.dataset.face, recipe.seed,
        recipe.fmr, recipe.cells if row.cells is None else row.cells, lpips,
    )  # fmt: skip
    card = {
        "name": f"{recipe.name}/{row.name}",
        "recipe": recipe.name,
        "evidence": recipe.evidence,
        "note": recipe.note,
        "method": {"name": row.method, "kind": kind, "origin": "bauta", "config": config},
        "compared_with": ANOTHER,
    }
    return plan, card | participants(plan)


def participants(plan: Plan) -> Record:
    """The fields of a card about who attacks and judges, how.

    A judge that a surrogate learned from counts as attacked: a mask against the student was made against it too.

    Raises:
        RecognizerError: when one is not known, or a judge is not calibrated.
    """
    surrogates = [find_card(name) for name in plan.surrogates]
    attacked = {card.sha256 for card in surrogates}
    for name in taught_by(surrogates):
        with contextlib.suppress(UnknownRecognizer):  # who is not here judges nothing
            attacked.add(find_card(name).sha256)
    judges = []
    for name in plan.judges:
        found = find_card(name)
        judges.append(
            {
                "name": name,
                "sha256": found.sha256,
                "attacked": found.sha256 in attacked,
                "threshold": asdict(threshold(found, plan.fmr)),
            }
        )
    return {
        "seed": plan.seed,
        "fmr": plan.fmr,
        "transports": list(plan.transports),
        "face": plan.face,
        "surrogates": [{"name": card.name, "sha256": card.sha256} for card in surrogates],
        "judges": judges,
    } | ({} if plan.lpips is None else {"lpips_sha256": Lpips(plan.lpips).sha256})


def run_items(
    items: Sequence[Item],
    plan: Plan,
    card: Record,
    data: str,
    path: Path,
    *,
    batch: int,
    work: Path,
    jobs: int = 1,
    examples: int = 0,
    gallery: Gallery | None = None,
    command: str = "",
    progress: Steps = silent,
) -> cards.Card:
    """Measure pairs by a plan, and write the card when all are done.

    Args:
        items: The pairs.
        plan: How.
        card: The fields that were known before.
        data: Name of the data set.
        path: File of the card.
        batch: Pairs whose masks are made together.
        work: Folder of finished batches.
        jobs: Worker processes.
        examples: Of how many pairs to keep pictures, and of how many more that are still recognised.
        gallery: To search, if identification is wanted.
        command: As it was given.
        progress: Called with the pairs done and the pairs there are.

    Raises:
        BautaError: as `run_recipe`; no card is written then.
    """
    began = time.monotonic()
    plan = replace(plan, examples=examples > 0)
    batches = []
    for start in range(0, len(items), batch):
        part = tuple(items[start : start + batch])
        batches.append((plan, Batch(part, work / plan.key[:16] / f"{batch_name(part)}.json")))
    outcomes: list[Outcome | None] = [None] * len(batches)
    done = 0
    progress(0, len(items))
    for place, outcome in _measured(batches, min(jobs, len(batches))):
        outcomes[place] = outcome
        done += len(batches[place][1].items)
        progress(done, len(items))
    records: list[Record] = []
    pictures: list[Record] = []
    finished = [outcome for outcome in outcomes if outcome is not None]
    for outcome in finished:
        pictures += [{**one, "record": one["record"] + len(records)} for one in outcome.report["pictures"]]
        records += outcome.report["records"]
    spent = [second for outcome in finished for second in outcome.report["mask_seconds"]]
    arrays = {name: np.concatenate([outcome.arrays[name] for outcome in finished]) for name in (*plan.judges, CROPS)}
    results = summarise(records, card["judges"], plan.transports)  # refuses a set without a face
    if gallery is not None:
        add_ranks(records, arrays, gallery)
        results = summarise(records, card["judges"], plan.transports)
    faces = arrays[CROPS][[not record["failure"] for record in records]]
    whole = cards.finish(
        card
        | {
            "data": {"name": data, "pairs": len(items), "sha256": digest(items)},
            "code": cards.code(),
            **({} if gallery is None else {"gallery": gallery.facts}),
            "results": results,
            "set_quality": set_quality(faces[:, 0], faces[:, 1]),
            "det": det_points(records, arrays),
            "passes": {key: sum(outcome.report[key] for outcome in finished) for key in ("forward", "backward")},
            "records": records,
            "examples": _chosen(pictures, records, card["judges"], examples),
            "run": {
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": command,
                "seconds": round(time.monotonic() - began, 2),
                "seconds_per_face": round(float(np.mean(spent)), 3) if spent else None,
                "machine": cards.machine(),
            },
        },
        PhotoCard,
    )
    cards.write_card(whole, path)
    return whole


def _chosen(
    pictures: Sequence[Record], records: Sequence[Record], judges: Sequence[Record], count: int
) -> list[Record]:
    """The first pictures, and the first of faces that an independent judge still recognises, or any where none is."""
    limits = {judge["name"]: judge["threshold"]["cosine"] for judge in judges if not judge["attacked"]}
    limits = limits or {judge["name"]: judge["threshold"]["cosine"] for judge in judges}
    failed = [one for one in pictures if still_recognised(records[one["record"]], limits)]
    wanted = {one["record"] for one in (*pictures[:count], *failed[:count])}
    return [one for one in pictures if one["record"] in wanted]


def _measured(batches: Sequence[tuple[Plan, Batch]], jobs: int) -> Iterator[tuple[int, Outcome]]:
    """Outcomes with the place of their batch, as they come."""
    if jobs <= 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # sums are in the same order then, however many cores there are
        try:
            bench: Bench | None = None
            for place, (plan, batch) in enumerate(batches):
                if bench is None or bench.plan != plan:
                    bench = Bench(plan)
                yield place, bench.measure(batch)
        finally:
            torch.set_num_threads(threads)
        return
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(jobs, context, initializer=_start_worker)
    try:
        futures: dict[Future[Outcome], int] = {
            executor.submit(_work, plan, batch): place for place, (plan, batch) in enumerate(batches)
        }
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise BautaError(
            "A worker process died, most likely for want of memory.",
            hint="Run again with fewer --jobs: finished batches are kept.",
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


_bench: Bench | None = None


def _start_worker() -> None:
    torch.set_num_threads(1)


def _work(plan: Plan, batch: Batch) -> Outcome:
    global _bench
    if _bench is None or _bench.plan != plan:
        _bench = Bench(plan)
    return _bench.measure(batch)
