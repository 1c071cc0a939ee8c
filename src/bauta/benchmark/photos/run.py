"""Tables of photos: rows are measured batch by batch, so that a run can go on.

What happens to a batch is in `bauta.benchmark.photos.measuring`; what is computed of all of them together here.
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass

import numpy as np
import torch

from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.run import Job, Kind, Task
from bauta.benchmark.photos.measuring import CROPS, Batch, Bench, Item, Outcome, Plan, Record, batch_name, digest
from bauta.benchmark.photos.page import Photos
from bauta.benchmark.photos.recipe import Pair, Recipe, Row, read_recipe
from bauta.benchmark.photos.results import still_recognised, usable
from bauta.benchmark.photos.search import (
    Gallery,
    add_ranks,
    add_snowball,
    det_points,
    draw_distractors,
    embed_gallery,
)
from bauta.cloaks.base import FitsPerson, load_cloak
from bauta.errors import BautaError, UnknownRecognizer
from bauta.judging.lpips import Lpips
from bauta.judging.quality import set_quality
from bauta.progress import steps_of
from bauta.recognizers import find_card, threshold
from bauta.recognizers.cards import taught_by

ORIGINAL, ANOTHER = "the original", "another photo"


@dataclass(frozen=True, eq=False)
class Setup:
    """What all rows share.

    Attributes:
        recipe: The recipe.
        job: How it is run.
        name: Of the data set.
        pairs: Its pairs.
        plans: By row, how it is measured, and the fields of its card that are known before.
        gallery: To search, if identification is wanted.
    """

    recipe: Recipe
    job: Job
    name: str
    pairs: Sequence[Pair]
    plans: Mapping[str, tuple[Plan, Card]]
    gallery: Gallery | None


class PhotoKind(Photos, Kind[Recipe, Setup]):
    """Methods that protect photos, before judges that they did not attack."""

    def read(self, recipe: str) -> Recipe:
        """See `read_recipe`."""
        return read_recipe(recipe)

    def set_up(self, recipe: Recipe, job: Job) -> Setup:
        """The pairs, plans of all rows, and the gallery.

        Raises:
            UsageError: when the data set or a method cannot be used.
            RecognizerError: when a recogniser cannot be used, or a judge has no threshold.
        """
        name, pairs = recipe.dataset.read(job.data)
        plans = {row.name: _plan(recipe, row, job) for row in recipe.rows}
        gallery = None
        if recipe.gallery is not None:
            folder, people = recipe.gallery.folder(job.data), {pair.subject for pair in pairs}
            others = None if folder is None else draw_distractors(folder, recipe.gallery.people, people, recipe.seed)
            gallery = embed_gallery(others, recipe.judges, job.kept, job.progress)
        return Setup(recipe, job, name, pairs, plans, gallery)

    def row(self, setup: Setup, row: Row, done: Mapping[str, Card]) -> Task:
        """The first pairs, as many as the row asks for."""
        recipe, (plan, known) = setup.recipe, setup.plans[row.name]
        limit = min(one for one in (row.pairs, recipe.pairs, len(setup.pairs)) if one is not None)
        learns = issubclass(load_cloak(row.method), FitsPerson)
        items = [
            Item(pair, learned_from=pair.others or (pair.protected,) if learns else ()) for pair in setup.pairs[:limit]
        ]
        return Task(lambda: known | measure(items, plan, setup.name, row.name, recipe.batch, setup.job, setup.gallery))


def _plan(recipe: Recipe, row: Row, job: Job) -> tuple[Plan, Card]:
    method = load_cloak(row.method)
    config, kind = method.configured(row.options).to_dict(), "reference" if method.card.reference else "cloak"
    surrogates = (
        (row.surrogates or recipe.surrogates) if "surrogates" in method.needs or issubclass(method, FitsPerson) else ()
    )
    plan = Plan(
        row.method, dict(row.options), surrogates, recipe.judges, row.transports or recipe.transports,
        recipe.dataset.face, recipe.seed,
        recipe.fmr, recipe.cells if row.cells is None else row.cells, job.lpips, job.examples > 0,
    )  # fmt: skip
    about = {"name": row.method, "kind": kind, "origin": "bauta", "config": config}
    return plan, {"method": about, "compared_with": ANOTHER} | participants(plan)


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
        "fmr": plan.fmr,
        "transports": list(plan.transports),
        "face": plan.face,
        "surrogates": [{"name": card.name, "sha256": card.sha256} for card in surrogates],
        "judges": judges,
    } | ({} if plan.lpips is None else {"lpips_sha256": Lpips(plan.lpips).sha256})


def measure(
    items: Sequence[Item], plan: Plan, data: str, row: str, batch: int, job: Job, gallery: Gallery | None = None
) -> Card:
    """Measure pairs by a plan.

    Args:
        items: The pairs.
        plan: How.
        data: Name of the data set.
        row: What progress is called.
        batch: Pairs whose masks are made together.
        job: Worker processes, the folder of finished batches, and of how many pairs to keep pictures.
        gallery: To search, if identification is wanted.

    Raises:
        BautaError: as `bauta.benchmark.engine.run.run`.
    """
    parts = [tuple(items[start : start + batch]) for start in range(0, len(items), batch)]
    batches = [Batch(part, job.kept / plan.key[:16] / f"{batch_name(part)}.json") for part in parts]
    progress = steps_of(job.progress, row)
    outcomes: dict[int, Outcome] = {}
    done = 0
    progress(0, len(items))
    for place, outcome in _measured(plan, batches, min(job.jobs, len(batches))):
        outcomes[place] = outcome
        done += len(batches[place].items)
        progress(done, len(items))
    finished = [outcomes[place] for place in range(len(batches))]
    records: list[Record] = []
    pictures: list[Record] = []
    for outcome in finished:
        pictures += [{**one, "record": one["record"] + len(records)} for one in outcome.report["pictures"]]
        records += outcome.report["records"]
    spent = [second for outcome in finished for second in outcome.report["mask_seconds"]]
    arrays = {name: np.concatenate([outcome.arrays[name] for outcome in finished]) for name in (*plan.judges, CROPS)}
    usable(records)  # refuses a set without a face
    if gallery is not None:
        add_ranks(records, arrays, gallery)
        limits = {judge["name"]: judge["threshold"]["cosine"] for judge in participants(plan)["judges"]}
        add_snowball(records, arrays, gallery, limits)
    faces = arrays[CROPS][[not record["failure"] for record in records]]
    return {
        "data": {"name": data, "pairs": len(items), "sha256": digest(items)},
        **({} if gallery is None else {"gallery": gallery.facts}),
        "set_quality": set_quality(faces[:, 0], faces[:, 1]),
        "det": det_points(records, arrays),
        "passes": {key: sum(outcome.report[key] for outcome in finished) for key in ("forward", "backward")},
        "records": records,
        "examples": _chosen(pictures, records, plan, job.examples),
        "run": {"seconds_per_face": round(float(np.mean(spent)), 3) if spent else None},
    }


def _chosen(pictures: Sequence[Record], records: Sequence[Record], plan: Plan, count: int) -> list[Record]:
    """The first pictures, and the first of faces that an independent judge still recognises, or any where none is."""
    judges = participants(plan)["judges"]
    limits = {judge["name"]: judge["threshold"]["cosine"] for judge in judges if not judge["attacked"]}
    limits = limits or {judge["name"]: judge["threshold"]["cosine"] for judge in judges}
    failed = [one for one in pictures if still_recognised(records[one["record"]], limits)]
    wanted = {one["record"] for one in (*pictures[:count], *failed[:count])}
    return [one for one in pictures if one["record"] in wanted]


def _measured(plan: Plan, batches: Sequence[Batch], jobs: int) -> Iterator[tuple[int, Outcome]]:
    """Outcomes with the place of their batch, as they come."""
    if jobs <= 1:
        bench = Bench(plan)
        for place, batch in enumerate(batches):
            yield place, bench.measure(batch)
        return
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(jobs, context, initializer=_start_worker)
    try:
        futures: dict[Future[Outcome], int] = {
            executor.submit(_work, plan, batch): place for place, batch in enumerate(batches)
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
