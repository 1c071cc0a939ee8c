"""Recipes: everything that decides the figures of a benchmark, in one TOML file.

The package carries its own in ``benchmark/recipes``. Keys are the fields of `Recipe`, with tables ``dataset`` and
``gallery`` and a list ``rows``. Paths lie below the data folder that the command is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bauta.benchmark.engine.recipe_files import ByRows, carried_in, check_row_name, read
from bauta.benchmark.photos.toys import toy_people
from bauta.benchmark.photos.transports import transports
from bauta.data.datasets import PairSet, read_counterparts, read_lfw, read_people
from bauta.data.images import FaceImage, is_image
from bauta.errors import UsageError
from bauta.names import normalise_name

Kind = Literal["toy", "lfw", "people", "counterparts", "originals"]
Face = Literal["central", "largest", "aligned"]

_FOLDER = files("bauta.benchmark") / "recipes"

KINDS: tuple[Kind, ...] = ("toy", "lfw", "people", "counterparts", "originals")
FACES: tuple[Face, ...] = ("central", "largest", "aligned")


@dataclass(frozen=True)
class Pair:
    """A photo to protect, and another photo of that person to recognise them by.

    Attributes:
        subject: The person: the unit of intervals.
        protected: The photo that methods change.
        reference: The clean photo it is compared with; the original itself where there is no other.
        others: Further photos of the person, from which methods that fit once learn; they are neither of the two.
    """

    subject: str
    protected: FaceImage
    reference: FaceImage
    others: tuple[FaceImage, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Where the photos come from.

    Attributes:
        kind: ``lfw`` (people's folders and a list of pairs, of which the genuine ones count), ``people`` (a folder
            for each person; the first photo is protected, the second is the reference), ``counterparts`` (two
            folders with one photo of each person under one name), ``originals`` (a folder of photos, each compared
            with itself before protection: the strictest case), or ``toy``, which needs no data.
        path: The folder, below the data folder.
        pairs: The list of pairs of ``lfw``.
        references: The folder of other photos of ``counterparts``, below the data folder.
        learn: Photos of each person in ``people``, the first ones, that methods which fit once learn from and that are
            in no pair; 0 for all that are in none.
        each: Pairs of each person in ``people``, of different photos.
        people: Of ``people``, how many take part, in alphabetical order; 0 for all.
        without: Names of people who do not take part, in any spelling.
        only: Names of the people who take part, in any spelling; all when there are none.
        face: Which face of a photo is its person: the ``central`` one, the ``largest``, or ``aligned`` when photos
            are crops of 112 pixels (or a multiple) on the ArcFace template, in which none is looked for.
    """

    kind: Kind
    path: str = "."
    pairs: str = "pairs.txt"
    references: str = ""
    learn: int = 0
    each: int = 1
    people: int = 0
    without: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    face: Face = "central"

    def __post_init__(self) -> None:
        texts = isinstance(self.without, str) or isinstance(self.only, str)
        if min(self.learn, self.people) < 0 or self.each < 1 or texts:
            raise UsageError(
                f"learn is {self.learn}, each {self.each}, people {self.people}, without {self.without!r} and only "
                f"{self.only!r}.",
                hint="learn and people are 0 or more, each is 1 or more, without and only are lists of names.",
            )
        if self.kind not in KINDS or self.face not in FACES or (self.kind == "counterparts") != bool(self.references):
            raise UsageError(
                f"A data set of kind {self.kind!r} with face {self.face!r} and references {self.references!r} is "
                "none that can be read.",
                hint=f"Kinds are {', '.join(KINDS)}; faces are {', '.join(FACES)}; counterparts need references.",
            )

    def read(self, data: Path | None) -> tuple[str, list[Pair]]:
        """The set's name, and its genuine pairs in the order of its list.

        Raises:
            UsageError: when there is no such set, no folder was given, or somebody named in `only` is not there.
        """
        name, pairs = self._all(data)
        if not self.only:
            return name, pairs
        wanted = {normalise_name(one): one for one in self.only}
        there = {normalise_name(pair.subject) for pair in pairs}
        if missing := [one for key, one in wanted.items() if key not in there]:
            raise UsageError(
                f"{len(missing)} people of only have no pair in {name}, such as {missing[0]}.",
                hint="Name people of its list of pairs.",
            )
        return name, [pair for pair in pairs if normalise_name(pair.subject) in wanted]

    def _all(self, data: Path | None) -> tuple[str, list[Pair]]:
        if self.kind == "toy":
            return "toy people, made of composites", [Pair(*row) for row in toy_people()]
        if data is None:
            raise UsageError(f"A data set of kind {self.kind} needs a folder.", hint="Give --data DIR.")
        folder = data / self.path
        if self.kind == "people":
            return self._first_two(folder)
        if self.kind == "originals":
            return folder.name, _each_alone(folder)
        found = (
            read_lfw(folder, pairs=self.pairs)
            if self.kind == "lfw"
            else read_counterparts(folder, data / self.references)
        )
        return found.name, _genuine(found)

    def _first_two(self, folder: Path) -> tuple[str, list[Pair]]:
        people = read_people(folder)
        photos: dict[str, list[FaceImage]] = {}
        left_out = {normalise_name(name) for name in self.without}
        for subject, image in zip(people.subjects, people.images, strict=True):
            if normalise_name(subject) not in left_out:
                photos.setdefault(subject, []).append(image)
        wanted = self.learn + 2 * self.each
        enough = {subject: images for subject, images in photos.items() if len(images) >= wanted}
        pairs = []
        for subject, images in list(enough.items())[: self.people or None]:
            learnt = tuple(images[: self.learn]) if self.learn else tuple(images[2 * self.each :])
            rest = images[self.learn :]
            pairs += [Pair(subject, rest[2 * one], rest[2 * one + 1], learnt) for one in range(self.each)]
        if not pairs or len(enough) < self.people:
            raise UsageError(
                f"{len(enough)} people in {folder} have {wanted} photos.",
                hint="Each needs two for every pair, and those to learn from.",
            )
        return people.name, pairs


def _each_alone(folder: Path) -> list[Pair]:
    files = sorted(path for path in folder.rglob("*") if is_image(path)) if folder.is_dir() else []
    if not files:
        raise UsageError(f"There is no photo in {folder}.", hint="Give a folder of photos.")
    images = [FaceImage(path.relative_to(folder).as_posix(), path) for path in files]
    return [Pair(path.stem, image, image) for path, image in zip(files, images, strict=True)]


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: What it is called in the table, unique within the recipe.
        method: A registered cloak.
        options: The method's settings by name; ``preset`` chooses among its named ones.
        surrogates: Attacked instead of the recipe's.
        pairs: Run on the first so many pairs only.
        cells: Instead of the recipe's.
        transports: Instead of the recipe's.
    """

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    surrogates: tuple[str, ...] | None = None
    pairs: int | None = None
    cells: bool | None = None
    transports: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_row_name(self.name)
        if isinstance(self.surrogates, str):
            raise UsageError(f"Row {self.name!r}: surrogates is {self.surrogates!r}.", hint="Give a list of names.")
        if self.pairs is not None and self.pairs < 1:
            raise UsageError(f"Row {self.name!r}: pairs is {self.pairs}.", hint="Give 1 or more.")


@dataclass(frozen=True)
class GallerySource:
    """What is searched beside the other photos of the pairs' people: targets, and strangers if a folder is named.

    Attributes:
        path: A folder ``person/image`` of aligned crops, below the data folder; people of the pairs are left out.
        people: How many strangers to draw, one image of each.
    """

    path: str = ""
    people: int = 0

    def __post_init__(self) -> None:
        if self.people < 0 or bool(self.path) != bool(self.people):
            raise UsageError(
                f"A gallery with {self.people} people of {self.path!r} makes no sense.",
                hint="Give path and people, or neither: then only the pairs' people are in it.",
            )

    def folder(self, data: Path | None) -> Path | None:
        """The folder of strangers; None without any.

        Raises:
            UsageError: when no data folder was given.
        """
        if not self.path:
            return None
        if data is None:
            raise UsageError("The gallery needs a folder.", hint="Give --data DIR.")
        return data / self.path


@dataclass(frozen=True)
class Recipe(ByRows):
    """A table: the same pairs, judges and transports for each row.

    Attributes:
        name: What its cards are called.
        dataset: The photos.
        rows: The methods.
        surrogates: Recognisers that methods attack.
        judges: Recognisers that judge; one that a row attacks is marked so, and left out of the independent mean.
        transports: What happens to the photo before it is judged, see `bauta.benchmark.photos.transports`.
        fmr: False match rate of the thresholds.
        pairs: Run on the first so many pairs only.
        batch: Pairs whose masks are made together; a finished batch is kept.
        cells: Whether to protect both photos of a pair, and compare them in all ways.
        gallery: Search for the people in it; None for no identification.
        seed: Of everything random.
        evidence: False for runs whose figures mean nothing.
        note: One sentence for the readers of the cards.
    """

    name: str
    dataset: Dataset
    rows: tuple[Row, ...]
    surrogates: tuple[str, ...]
    judges: tuple[str, ...]
    transports: tuple[str, ...] = ("saved",)
    fmr: float = 1e-2
    pairs: int | None = None
    batch: int = 15
    cells: bool = False
    gallery: GallerySource | None = None
    seed: int = 0
    evidence: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        checks: dict[str, bool] = {
            "rows": bool(names) and len(set(names)) == len(names),
            "surrogates": not isinstance(self.surrogates, str)
            and bool(self.surrogates)
            and len(set(self.surrogates)) == len(self.surrogates),
            "judges": not isinstance(self.judges, str)
            and bool(self.judges)
            and len(set(self.judges)) == len(self.judges),
            "transports": not isinstance(self.transports, str)
            and "saved" in self.transports
            and len(set(self.transports)) == len(self.transports),
            "fmr": 0 < self.fmr < 1,
            "pairs": self.pairs is None or self.pairs >= 1,
            "batch": 1 <= self.batch <= 256,
            "cells": isinstance(self.cells, bool),
        }
        for name, good in checks.items():
            if not good:
                value = names if name == "rows" else getattr(self, name)
                raise UsageError(
                    f"Recipe {self.name!r}: {name} is {value!r}.",
                    hint="Names are given once, and `saved` is among the transports; see docs/benchmark.md.",
                )
        for name in self.transports:
            transports(name)


def carried() -> list[str]:
    """Names of the recipes that the package carries."""
    return carried_in(_FOLDER)


def read_recipe(recipe: str) -> Recipe:
    """A recipe by the name of one that the package carries, or from a TOML file.

    Raises:
        UsageError: when there is none, it cannot be read, or a value is not allowed.
    """
    return read(Recipe, recipe, _FOLDER)


def _genuine(pairs: PairSet) -> list[Pair]:
    return [
        Pair(pairs.subjects[pairs.first[place]], pairs.images[pairs.first[place]], pairs.images[pairs.second[place]])
        for place in np.flatnonzero(pairs.same).tolist()
    ]
