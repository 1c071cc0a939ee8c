"""Cards of clips: made person by person, and shown as tables."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bauta.benchmark.engine import cards
from bauta.benchmark.engine.cards import Card
from bauta.benchmark.engine.compare import Difference, common_records
from bauta.benchmark.engine.figures import mean_by_subject, rounded
from bauta.benchmark.engine.run import Job, Kind, Task
from bauta.benchmark.engine.table import Family, Table, label, percent, require_cards
from bauta.benchmark.video.cards import Comparison, VideoCard
from bauta.benchmark.video.clips import Attacker, central, difference, make_clip
from bauta.benchmark.video.recipe import VideoRecipe, VideoRow, read_recipe
from bauta.clips.clip import Frame, Patch, read_clip
from bauta.clips.writing import as_floats, as_samples, write_clip
from bauta.cloaking.apply import Picture, edit_pictures
from bauta.cloaking.clip_pipeline import ClipPipeline
from bauta.cloaking.fitting import fit
from bauta.cloaking.pipeline import Pipeline
from bauta.cloaking.settings import ProtectSettings
from bauta.cloaks.base import load_cloak
from bauta.errors import NoFaceFound, UsageError
from bauta.files import make_folder, write_atomically
from bauta.judging.findings import MESSENGER, ORIGINAL
from bauta.keys import DeploymentKey
from bauta.photo import read_photo
from bauta.progress import silent, steps_of
from bauta.recognizers import find_card

FRESH = 3
"""Frames of a clip that get a mask of their own."""
MOST_PHOTOS = 10
"""That a mask is fitted to."""
_FEWEST = 3
_BORDER = 56  # pixels put around crops, in which faces are too near to the edge to be found
CONDITIONS = ("saved", MESSENGER)


class Clips(Family):
    """Cards of clips, one for a method."""

    record = VideoCard

    def figures(self, card: Card) -> Card:
        """Shares of comparisons, and means over clips."""
        limits = {judge["name"]: judge["cosine"] for judge in card["judges"]}
        sides: Card = {}
        for name in ("another", "itself"):
            sides[name] = {}
            for condition in CONDITIONS:
                found = [
                    (record["subject"], one)
                    for record in card["records"]
                    for one in record["comparisons"]
                    if one["known"]
                    and one["condition"] == condition
                    and (one["against"] == ORIGINAL) == (name == "itself")
                ]
                sides[name][condition] = _side(found, limits)
        means = {
            name: rounded(np.mean([record[name] for record in card["records"]]))
            for name in ("flicker", "mask_seconds", "frame_seconds", "fitted_to")
        }
        sizes = [record["size"] for record in card["records"] if record["size"] is not None]
        return sides | means | {"size": rounded(np.mean(sizes)) if sizes else None}

    def tables(self, cards: Sequence[Card]) -> list[Table]:
        """All rows, then each judge.

        Raises:
            UsageError: when there is no card.
        """
        require_cards(cards)
        judges = [judge["name"] for judge in cards[0]["judges"]]
        return [
            Table(
                "Clips",
                (
                    *("row", "clips", "best frame, another photo", "after a messenger", "frames, another photo"),
                    *("best frame, the clip itself", "flicker", "size", "processor seconds: mask", "a frame"),
                ),
                [_cells(card, cards) for card in cards],
                "Percent of comparisons in which no frame matches, or of frames that do not; 95 % intervals by person.",
            ),
            Table(
                "By judge",
                ("row", *judges),
                [
                    (label(card, cards), *(_of_judge(card["results"]["another"]["saved"], judge) for judge in judges))
                    for card in cards
                ],
                "Best frame against another photo, percent.",
            ),
        ]

    def compare(self, first: Card, second: Card) -> list[Difference]:
        """Comparisons with other photos in which no frame matches, and the flicker, clip by clip.

        Raises:
            UsageError: when the cards share no clip.
        """
        both = common_records(first, second, lambda record: record["subject"])
        limits = {judge["name"]: judge["cosine"] for judge in first["judges"]}

        def dodged(record: Card) -> list[float]:
            return [
                float(one["best"] < limits[one["judge"]])
                for one in record["comparisons"]
                if one["known"] and one["condition"] == "saved" and one["against"] != ORIGINAL
            ]

        return [
            *both.difference("best frame, another photo", dodged, dodged),
            *both.difference("flicker", lambda record: [record["flicker"]], lambda record: [record["flicker"]]),
        ]


def _side(found: Sequence[tuple[str, Card]], limits: Mapping[str, float]) -> Card:
    people = [subject for subject, _ in found]
    dodged = [float(one["best"] < limits[one["judge"]]) for _, one in found]
    by_judge = {
        judge: rounded(np.mean(own))
        for judge in limits
        if (own := [value for value, (_, one) in zip(dodged, found, strict=True) if one["judge"] == judge])
    }
    return {
        "comparisons": len(found),
        "best_frame": mean_by_subject(dodged, people) if found else None,
        "frames": mean_by_subject([1 - one["matching"] for _, one in found], people) if found else None,
        "judges": by_judge,
    }


def _cells(card: Card, all_cards: Sequence[Card]) -> tuple[str, ...]:
    results = card["results"]
    other, itself = results["another"], results["itself"]["saved"]
    return (
        label(card, all_cards),
        str(len(card["records"])),
        f"{percent(other['saved']['best_frame'], 0)} of {other['saved']['comparisons']}",
        percent(other[MESSENGER]["best_frame"], 0),
        percent(other["saved"]["frames"], 0),
        f"{percent(itself['best_frame'], 0)} of {itself['comparisons']}" if itself["comparisons"] else "-",
        f"{results['flicker']:.2f}",
        "-" if results["size"] is None else f"{results['size']:.2f}",
        f"{results['mask_seconds']:.1f}" if results["mask_seconds"] >= 0.05 else "-",
        f"{results['frame_seconds']:.2f}",
    )


def _of_judge(side: Card, judge: str) -> str:
    return f"{100 * side['judges'][judge]:.0f}" if judge in side["judges"] else "-"


@dataclass(frozen=True)
class _Setup:
    recipe: VideoRecipe
    job: Job
    judging: Pipeline
    photos: Mapping[str, list[Path]]
    data: str


class VideoKind(Clips, Kind[VideoRecipe, _Setup]):
    """Clips made of photos, protected, written, and read back."""

    def read(self, recipe: str) -> VideoRecipe:
        """See `read_recipe`."""
        return read_recipe(recipe)

    def set_up(self, recipe: VideoRecipe, job: Job) -> _Setup:
        """The judges, and the photos of all people.

        Raises:
            UsageError: when somebody has less than two photos.
        """
        photos, total = {}, hashlib.sha256()
        for name in recipe.people:
            photos[name] = sorted((job.folder / recipe.folder / name).glob("*.jpg"))
            if len(photos[name]) < 2:
                raise UsageError(
                    f"{recipe.folder}/{name} has {len(photos[name])} photos, and 2 are needed.",
                    hint="Put them there as JPEG, or leave the person out of the recipe.",
                )
            for path in (*photos[name], *_further(recipe, job, name, photos[name])):
                total.update(f"{name}/{path.name}".encode() + b"\0" + path.read_bytes())
        return _Setup(recipe, job, Pipeline(_settings(recipe, "clean")), photos, total.hexdigest())

    def row(self, setup: _Setup, row: VideoRow, done: Mapping[str, Card]) -> Task:
        """What a method makes of the clips."""
        recipe, judges = setup.recipe, setup.judging.judges
        fmr = setup.judging.settings.fmr
        limits = {member.name: member.thresholds[fmr].cosine for member in judges}
        facts: dict[str, Any] = {
            "method": row.method,
            "options": dict(row.options),
            "each_frame": row.each_frame,
            "frames": recipe.frames,
            "data": setup.data,
            "surrogates": [_network(name) for name in recipe.surrogates],
            "judges": [{**_network(member.name), "cosine": rounded(limits[member.name])} for member in judges],
        }
        about = [
            cards.source_digest(("clips", "cloaking", "cloaks", "faces", "objectives", "recognizers")),
            recipe.seed,
        ]
        kept = cards.digest([about, facts])
        people = recipe.people_of(row)
        key = cards.digest([kept, people])
        before = done.get(recipe.baseline)
        return Task(lambda: facts | {"records": _measured(setup, row, people, kept, limits, before)}, key)


def _network(name: str) -> Card:
    return {"name": name, "sha256": find_card(name).sha256}


def _settings(recipe: VideoRecipe, method: str, **more: Any) -> ProtectSettings:
    own: dict[str, Any] = {"surrogates": recipe.surrogates} if "surrogates" in load_cloak(method).needs else {}
    return ProtectSettings(method=method, judges=recipe.judges, seed=recipe.seed, **own, **more)


def _further(recipe: VideoRecipe, job: Job, name: str, photos: Sequence[Path]) -> list[Path]:
    """Photos of a person that are not among those of the clip."""
    there = {path.stem for path in photos}
    return [path for path in sorted((job.folder / recipe.more / name).glob("*.*")) if path.stem not in there]


def _measured(
    setup: _Setup,
    row: VideoRow,
    people: Sequence[str],
    key: str,
    limits: Mapping[str, float],
    before: Card | None,
) -> list[Card]:
    """A record for each person; what an earlier run has finished is not done again."""
    kept, steps = setup.job.kept / f"video-{key[:32]}.json", steps_of(setup.job.progress, row.name)
    records: dict[str, Card] = json.loads(kept.read_text()) if kept.is_file() else {}
    clean = {} if before is None else {record["subject"]: record for record in before["records"]}
    make_folder(setup.job.kept)
    for done, name in enumerate(people):
        if name not in records:
            with tempfile.TemporaryDirectory(prefix="bauta-") as folder:
                records[name] = _Person(setup, name, Path(folder), limits).measure(row, clean.get(name))
            write_atomically(kept, json.dumps(records).encode(), overwrite=True)
        steps(done + 1, len(people))
    return [records[name] for name in people]


class _Person:
    """A clip of one person, and what is said of what becomes of it."""

    def __init__(self, setup: _Setup, name: str, folder: Path, limits: Mapping[str, float]) -> None:
        self.setup, self.name, self.folder, self.limits = setup, name, folder, limits
        recipe, self.photos = setup.recipe, setup.photos[name]
        self.source = folder / f"{name}.mp4"
        self.places = make_clip(self.photos[0], self.source, recipe.frames, (recipe.seed, recipe.people.index(name)))

    def measure(self, row: VideoRow, clean: Card | None) -> Card:
        """One record."""
        target, places, itself = self.folder / "written.mp4", self.places, []
        size, spent, fitted_to = None, [0.0], 0
        if row.each_frame:
            pipeline = Pipeline(_settings(self.setup.recipe, row.method, options=tuple(row.options.items())))
            places = places[:FRESH]
            a_frame = self._each_frame(pipeline, target)
        else:
            pipeline, fitted_to = self._pipeline(row)
            spent = _timed(pipeline.cloak)
            began = time.process_time()
            report = ClipPipeline(pipeline).protect(read_clip(self.source), target)
            a_frame = (time.process_time() - began - sum(spent)) / len(places)
            size = rounded(target.stat().st_size / self.source.stat().st_size)
            face = max(report.faces, key=lambda one: one.frames)
            itself = [(one.judge, ORIGINAL, one.condition, one.best, float(one.matching or 0.0)) for one in face.judges]
        found, clip = [*itself], read_clip(target)
        attacker = Attacker(self.setup.judging, self.photos[1:])
        for condition in CONDITIONS:
            for judge, cosines in attacker.cosines(clip, places, condition).items():
                for photo, own in zip(attacker.photos, cosines.T, strict=True):
                    matching = float((own >= self.limits[judge]).mean())
                    found.append((judge, photo, condition, float(own.max()), matching))
        known = {
            (one["judge"], one["against"], one["condition"]): one["known"]
            for one in (clean or {}).get("comparisons", ())
        }
        moved = difference(target, places)
        return {
            "subject": self.name,
            "difference": rounded(moved),
            "flicker": rounded(moved / clean["difference"]) if clean else 1.0,
            "size": size,
            "mask_seconds": rounded(sum(spent)),
            "frame_seconds": rounded(a_frame),
            "fitted_to": fitted_to,
            "comparisons": [
                asdict(
                    Comparison(
                        judge,
                        against,
                        condition,  # type: ignore[arg-type]
                        known.get((judge, against, condition), False) if clean else best >= self.limits[judge],
                        rounded(best),
                        rounded(matching),
                    )
                )
                for judge, against, condition, best, matching in found
            ],
        }

    def _pipeline(self, row: VideoRow) -> tuple[Pipeline, int]:
        """What protects, and how many photos it was fitted to."""
        recipe, options = self.setup.recipe, tuple(row.options.items())
        if "fitted" not in load_cloak(row.method).needs:
            return Pipeline(_settings(recipe, row.method, options=options)), 0
        photos = []
        for path in _further(recipe, self.setup.job, self.name, self.photos):
            pixels = np.pad(read_photo(path).pixels, ((_BORDER, _BORDER), (_BORDER, _BORDER), (0, 0)), mode="edge")
            try:
                central(pixels)
            except NoFaceFound:
                continue
            photos.append((255 * pixels).round().astype(np.uint8))
        photos = photos[:MOST_PHOTOS]
        if len(photos) < _FEWEST:
            raise UsageError(
                f"{recipe.more}/{self.name} has {len(photos)} further photos with a face.",
                hint=f"Put {_FEWEST} to {MOST_PHOTOS} there, or leave the person out of fitted_people.",
            )
        mask, key = self.folder / "person.mask", DeploymentKey.generate()
        fitted = fit(
            row.method, photos, options=dict(row.options), surrogates=recipe.surrogates, judges=recipe.judges,
            seed=recipe.seed,
        )  # fmt: skip
        fitted.save(mask, key=key)
        return Pipeline(_settings(recipe, row.method, fitted=(mask,), opens=key)), len(photos)

    def _each_frame(self, pipeline: Pipeline, target: Path) -> float:
        """Write a clip of which each of the first frames has a mask of its own; processor seconds a frame."""
        spent: list[float] = []

        def change(frame: Frame) -> Patch | None:
            if frame.number >= FRESH:
                return None
            pixels = as_floats(frame.pixels)
            picture = Picture(pixels, self.places[frame.number][None])
            began = time.process_time()
            (made,) = edit_pictures(pipeline.cloak, [picture], pipeline.work(silent))
            spent.append(time.process_time() - began)
            height, width = pixels.shape[:2]
            return Patch(slice(0, height), slice(0, width), as_samples(pixels + made.delta, frame.pixels))

        write_clip(read_clip(self.source), target, change)
        return float(np.mean(spent))


def _timed(cloak: Any) -> list[float]:
    """A list that gets the processor seconds of every mask that the cloak makes for a clip."""
    spent: list[float] = []
    follow = getattr(type(cloak), "follow", None)

    def measured(views: Sequence[Any], work: Any) -> Any:
        began = time.process_time()
        made = follow(cloak, views, work)  # type: ignore[misc]
        spent.append(time.process_time() - began)
        return made

    if follow is not None:
        cloak.follow = measured
    return spent
