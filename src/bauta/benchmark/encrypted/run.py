"""Cards of encrypted matching: door, server and dealer in turns in one process, without a network."""

from __future__ import annotations

import resource
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from bauta.benchmark.encrypted.cards import EncryptedCard, Spent, Traffic
from bauta.benchmark.encrypted.recipe import EncryptedRecipe, EncryptedRow, read_recipe
from bauta.benchmark.engine import cards
from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.run import Job, Kind, Task
from bauta.benchmark.engine.table import Family, Table, label, require_cards
from bauta.encrypted.comparison import Side, opened, plan, run_both, server_values
from bauta.encrypted.encoded import Answer, PlainGallery
from bauta.encrypted.kernel import in_parts
from bauta.encrypted.keys import DealerKey, generate_keys
from bauta.encrypted.packing import Layout
from bauta.encrypted.parameters import PLAIN
from bauta.encrypted.quantisation import quantise, quantise_threshold
from bauta.encrypted.scheme import PublicKey, SecretKey
from bauta.encrypted.triples import DoorTapes, ServerTapes
from bauta.encrypted.workers import ShardedGallery
from bauta.progress import Progress, steps_of

Embeddings = NDArray[np.float32]
T = TypeVar("T")
P = ParamSpec("P")

PART = 65536
"""Templates that are made at once."""


class EncryptedMatching(Family):
    """Cards of encrypted matching, one for a gallery."""

    record = EncryptedCard

    def tables(self, cards: Sequence[Card]) -> list[Table]:
        """Exactness and cost, then where the time goes.

        Raises:
            UsageError: when there is no card.
        """
        require_cards(cards)
        return [
            Table(
                "Decisions and their cost",
                (
                    *(
                        "row",
                        "people",
                        "scores off by 1, more",
                        "decisions that differ",
                        "s a decision",
                        "each of several",
                    ),
                    *(
                        "MB up / down / compared / dealt",
                        "rounds",
                        "GB gallery (peak)",
                        "ms in the clear: numpy / faiss",
                    ),
                ),
                [_cost(card, cards) for card in cards],
                "Seconds of the processor (of the clock): encrypt, answer with masks drawn ahead, decrypt, compare.",
            ),
            Table(
                "Where the time goes",
                ("row", *(one.name.replace("_", " ") for one in fields(Spent)[1:-2]), "encode, us each"),
                [_steps(card, cards) for card in cards],
                "Seconds of the processor; with several workers of the clock.",
            ),
        ]


def _spent(card: Card) -> Mapping[str, float]:
    spent: Mapping[str, float] = card["run"]["processor" if card["workers"] == 1 else "clock"]
    return spent


def _decision(spent: Mapping[str, float]) -> float:
    return sum(spent[name] for name in ("encrypt", "answer_ahead", "decrypt", "compare"))


def _cost(card: Card, all_cards: Sequence[Card]) -> tuple[str, ...]:
    results, run, traffic = card["results"], card["run"], card["results"]["traffic"]
    alone = f"{_decision(run['processor']):.2f} " if card["workers"] == 1 else ""
    return (
        label(card, all_cards),
        f"{card['people']:,}",
        f"{results['wrong_by_one']}, {results['wrong_by_more']} of {results['scores']:,}",
        f"{results['decisions_differ']} of {results['decisions']}",
        f"{alone}({_decision(run['clock']):.2f})",
        f"{_spent(card)['answer_together'] / _spent(card)['answer_ahead']:.0%} of one answer",
        " / ".join(f"{traffic[name] / 1e6:.1f}" for name in ("up", "down", "compared", "dealt")),
        str(traffic["rounds"]),
        f"{results['gallery_bytes'] / 1e9:.2f} ({run['peak_bytes'] / 1e9:.1f})",
        f"{1000 * run['clock']['numpy']:.1f} / "
        + (f"{1000 * run['clock']['faiss']:.1f}" if run["clock"]["faiss"] else "-"),
    )


def _steps(card: Card, all_cards: Sequence[Card]) -> tuple[str, ...]:
    spent = _spent(card)
    names = [one.name for one in fields(Spent)[1:-2]]
    return (
        label(card, all_cards),
        *(f"{spent[name]:.3f}" for name in names),
        f"{spent['encode'] / card['people'] * 1e6:.0f}",
    )


class Watch:
    """Adds up what steps take, by the clock and by the processor."""

    def __init__(self) -> None:
        self.clock: dict[str, list[float]] = {}
        self.processor: dict[str, list[float]] = {}

    def __call__(self, name: str, step: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Do a step, and count its time."""
        began, spent = time.perf_counter(), time.process_time()
        made = step(*arguments, **named)
        for taken, value in ((self.clock, time.perf_counter() - began), (self.processor, time.process_time() - spent)):
            taken.setdefault(name, []).append(value)
        return made

    def records(self, probes: int) -> dict[str, Card]:
        """As `Spent`: medians, but what is done in parts is added up, and what is shared by probes is divided."""
        whole, share = ("encode",), {"draw": 1 + probes, "answer_together": probes}

        def one(taken: Mapping[str, list[float]], name: str) -> float:
            values = taken.get(name, [0.0])
            value = sum(values) if name in (*whole, "draw") else float(np.median(values))
            return round(value / share.get(name, 1), 6)

        names = [each.name for each in fields(Spent)]
        return {
            side: asdict(Spent(**{name: one(taken, name) for name in names}))
            for side, taken in (("clock", self.clock), ("processor", self.processor))
        }


class EncryptedKind(EncryptedMatching, Kind[EncryptedRecipe, tuple[EncryptedRecipe, Job]]):
    """Galleries of random templates; probes of which every other one resembles somebody."""

    def read(self, recipe: str) -> EncryptedRecipe:
        """See `read_recipe`."""
        return read_recipe(recipe)

    def set_up(self, recipe: EncryptedRecipe, job: Job) -> tuple[EncryptedRecipe, Job]:
        """Keys are made with each row.

        Raises:
            MissingExtra: when TenSEAL is not installed.
        """
        generate_keys()
        return recipe, job

    def row(self, setup: tuple[EncryptedRecipe, Job], row: EncryptedRow, done: Mapping[str, Card]) -> Task:
        """One gallery."""
        recipe, job = setup
        facts = {
            "people": row.people,
            "dimension": recipe.dimension,
            "split": recipe.layout(row).split,
            "workers": row.workers,
            "cosine": recipe.cosine,
            "genuine": recipe.genuine,
        }
        about = [cards.source_digest(("encrypted", "benchmark/encrypted")), facts, recipe.probes, recipe.seed]
        key = cards.digest(about)
        return Task(lambda: facts | _on_one_core(recipe, row, job.progress), key)


def _on_one_core(recipe: EncryptedRecipe, row: EncryptedRow, progress: Progress) -> Card:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return _measured(recipe, row, progress)


def _measured(recipe: EncryptedRecipe, row: EncryptedRow, progress: Progress) -> Card:
    door, server, dealer = generate_keys()
    layout, watch, steps = recipe.layout(row), Watch(), steps_of(progress, row.name)
    door.secret.encrypt(layout.probe(np.zeros(recipe.dimension, np.int16)))  # opens the key
    probes, parts = quantise(_probes(recipe, row)), -(-row.people // PART)
    with _gallery(layout, row.workers) as gallery:
        wanted = []
        for done, templates in enumerate(_templates(recipe, row), 1):
            whole = quantise(templates)
            wanted.append((probes.astype(np.float32) @ whole.T.astype(np.float32)).astype(np.int64))
            watch("encode", gallery.add, whole)
            steps(done, parts + 2)
        sealed = np.stack([watch("encrypt", door.secret.encrypt, layout.probe(one)) for one in probes])
        watch("answer", _answers, gallery, sealed[:1], server.public)
        for name, chosen in (("answer_ahead", sealed[:1]), ("answer_together", sealed)):
            watch("draw", _draw, gallery, server.public, len(chosen))
            answers = watch(name, _answers, gallery, chosen, server.public)
        steps(parts + 1, parts + 2)
        found = _decided(recipe, door.secret, layout, dealer, answers, np.concatenate(wanted, axis=1), watch)
        answers.clear()
        results = found | {"traffic": asdict(_traffic(layout, gallery.places)), "gallery_bytes": gallery.memory()}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        watch("erase", gallery.erase, row.people // 2)
        watch("add", gallery.add, probes[:1])
    _search_plainly(recipe, row, watch)
    steps(parts + 2, parts + 2)
    return {"results": results, "run": {**watch.records(len(probes)), "peak_bytes": peak}}


@contextmanager
def _gallery(layout: Layout, workers: int) -> Iterator[PlainGallery]:
    if workers == 1:
        yield PlainGallery(layout)
        return
    with ShardedGallery(layout, workers) as gallery:
        yield gallery


def _draw(gallery: PlainGallery, public: PublicKey, probes: int) -> None:
    while not gallery.draw_ahead(public, probes):
        continue


def _answers(gallery: PlainGallery, probes: NDArray[np.uint32], public: PublicKey) -> list[Answer]:
    return list(gallery.answer(probes, public))


def _decided(
    recipe: EncryptedRecipe,
    secret: SecretKey,
    layout: Layout,
    dealer: DealerKey,
    answers: Sequence[Answer],
    wanted: NDArray[np.int64],
    watch: Watch,
) -> Card:
    """Every probe's scores and first match, beside those in the clear."""
    threshold, people, count = quantise_threshold(recipe.cosine), wanted.shape[1], len(wanted)
    off_by_one = off_by_more = differ = matches = 0
    for probe in range(count):
        ours = watch("decrypt", _opened, secret, layout, answers, probe)
        theirs = np.concatenate([one.share[probe : probe + 1] for one in answers], axis=1)
        scores = ((ours.astype(np.int64) - theirs + PLAIN // 2) % PLAIN - PLAIN // 2)[0, :people]
        wrong = np.abs(scores - wanted[probe])
        off_by_one, off_by_more = off_by_one + int((wrong == 1).sum()), off_by_more + int((wrong > 1).sum())
        first = np.flatnonzero(wanted[probe] >= threshold)
        found = watch("compare", _compared, ours, theirs, threshold, dealer)
        matches += bool(len(first))
        differ += found != (int(first[0]) if len(first) else None)
    return {
        "scores": wanted.size,
        "wrong_by_one": off_by_one,
        "wrong_by_more": off_by_more,
        "decisions": count,
        "found": matches,
        "decisions_differ": differ,
    }


def _opened(secret: SecretKey, layout: Layout, answers: Sequence[Answer], probe: int) -> NDArray[np.uint32]:
    """The door's shares, (1, places)."""
    parts = []
    for one in answers:
        first, second = one.first[probe].transpose(1, 2, 0), np.ascontiguousarray(one.second[probe].transpose(1, 2, 0))
        parts.append(secret.decrypt(first, second, layout.width).T.reshape(-1))
    return np.concatenate(parts)[None]


def _compared(ours: NDArray[np.uint32], theirs: NDArray[np.uint32], threshold: int, dealer: DealerKey) -> int | None:
    sizes, session = plan(ours.shape[1], 1, "identify"), secrets.token_bytes(32)
    one, other, _ = run_both(
        Side(DoorTapes(dealer.tapes).tape(session, sizes), door=True).decide(ours, "identify"),
        Side(ServerTapes(dealer.tapes).tape(session, sizes), door=False).decide(
            server_values(theirs, threshold), "identify"
        ),
    )
    found: int | None = opened(one, other.tobytes())[0]
    return found


def _traffic(layout: Layout, places: int) -> Traffic:
    sizes = plan(places, 1, "identify")
    return Traffic(layout.upload(), layout.download(places), 2 * sum(sizes), sum(sizes), len(sizes))


def _unit(count: int, dimension: int, seed: Sequence[int]) -> Embeddings:
    values = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    made: Embeddings = values / np.linalg.norm(values, axis=1, keepdims=True)
    return made


def _templates(recipe: EncryptedRecipe, row: EncryptedRow) -> Iterator[Embeddings]:
    for number, part in enumerate(in_parts(row.people, PART)):
        yield _unit(part.stop - part.start, recipe.dimension, (recipe.seed, number))


def _probes(recipe: EncryptedRecipe, row: EncryptedRow) -> Embeddings:
    """Strangers, and every other one somebody of the first part, at the cosine of the recipe."""
    strangers = _unit(recipe.probes, recipe.dimension, (recipe.seed, 1 << 31))
    people = next(_templates(recipe, row))
    for number in range(0, recipe.probes, 2):
        person = people[len(people) * number // recipe.probes]
        aside = strangers[number] - (strangers[number] @ person) * person
        aside /= np.linalg.norm(aside)
        strangers[number] = recipe.genuine * person + np.sqrt(1 - recipe.genuine**2) * aside
    return strangers


def _search_plainly(recipe: EncryptedRecipe, row: EncryptedRow, watch: Watch) -> None:
    """One probe, the best five, in the clear: numpy in float32, and faiss in 8 bits where it is installed."""
    gallery = np.concatenate(list(_templates(recipe, row)))
    probe = _probes(recipe, row)[0]
    best = min(5, row.people)
    for _ in range(3):
        watch("numpy", lambda: np.argpartition(gallery @ probe, -best)[-best:])
    try:
        import faiss
    except ModuleNotFoundError:
        return
    faiss.omp_set_num_threads(1)
    index = faiss.IndexScalarQuantizer(
        recipe.dimension, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT
    )
    for part in in_parts(row.people, PART):
        index.add(np.rint(gallery[part] * 512).clip(-128, 127))
    coarse = np.rint(probe[None] * 512).clip(-128, 127)
    for _ in range(3):
        watch("faiss", index.search, coarse, best)
