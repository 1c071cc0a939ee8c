"""Recipes of the template benchmark: everything that decides its figures, in one TOML file.

The package carries its own in ``benchmark/template_recipes``. Keys are the fields of `TemplateRecipe`, with lists
``evaluation``, ``people``, ``attackers`` and ``rows``. Paths lie below the data folder that the command is given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from bauta.benchmark.crop_sets import CropSet, Source
from bauta.benchmark.engine.recipe_files import ByRows, carried_in, check_row_name, read
from bauta.data.datasets import PairSet, read_cfp, read_lfw
from bauta.data.people import OTHER_SPELLINGS
from bauta.errors import UsageError
from bauta.names import normalise_name

_FOLDER = files("bauta.benchmark") / "template_recipes"

SetKind = Literal["lfw", "cfp-ff", "cfp-fp"]
REFERENCES = ("mean face", "another photo", "grey")
SYSTEM = "system"  # what judges a representation that is stored
MATCHER = "matcher"  # the way to link that needs no student
RESERVED = {*REFERENCES, MATCHER, "numbers"}  # what cards list beside attackers
AttackKind = Literal[
    "picture", "decoder", "generative", "search", "student", "kernel", "kernel-student", "known-pairs", "store-alone",
    "invariants",
]  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """A set of pairs to verify. The first one also gives the victims of attacks.

    Attributes:
        kind: ``lfw`` (people's folders and a list of pairs), ``cfp-ff`` or ``cfp-fp``.
        path: The folder, below the data folder.
        pairs: The list of ``lfw``.
        count: Use about so many pairs, evenly spread over each kind in each fold; all by default.
    """

    kind: SetKind
    path: str
    pairs: str = "pairs.txt"
    count: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(SetKind) or (self.count is not None and self.count < 4):
            raise UsageError(
                f"Nothing can be verified on {self.count!r} pairs of a set of kind {self.kind!r}.",
                hint=f"Kinds are {', '.join(get_args(SetKind))}; four pairs are the least.",
            )

    def read(self, data: Path) -> PairSet:
        """The pairs.

        Raises:
            UsageError: when there is no such set.
        """
        folder = data / self.path
        found = (
            read_lfw(folder, pairs=self.pairs)
            if self.kind == "lfw"
            else read_cfp(folder, self.kind.partition("-")[2].upper())
        )
        return found if self.count is None else some_pairs(found, self.count)


def some_pairs(pairs: PairSet, count: int) -> PairSet:
    """About `count` pairs: as many genuine as impostor ones of each fold, spread evenly over its list."""
    folds = np.unique(pairs.fold)
    each = max(1, count // (2 * len(folds)))
    kinds = [np.flatnonzero((pairs.fold == fold) & (pairs.same == same)) for fold in folds for same in (0, 1)]
    chosen = np.sort(np.concatenate([kind[:: max(1, len(kind) // each)][:each] for kind in kinds]))
    used, place = np.unique(np.concatenate([pairs.first[chosen], pairs.second[chosen]]), return_inverse=True)
    return PairSet(
        f"{pairs.name}, {len(chosen)} pairs",
        tuple(pairs.images[one] for one in used.tolist()),
        place[: len(chosen)],
        place[len(chosen) :],
        pairs.same[chosen],
        pairs.fold[chosen],
        tuple(pairs.subjects[one] for one in used.tolist()),
    )


@dataclass(frozen=True)
class Attack:
    """An attacker of the table.

    Attributes:
        name: What it is called.
        kind: ``picture`` looks at the stored numbers as they are, ``decoder`` and ``generative`` learn to recover
            faces, ``search`` optimises an image, ``student`` links representations and faces; ``kernel`` and
            ``kernel-student`` do so in closed form. ``known-pairs`` and ``store-alone`` recover a key, ``invariants``
            links rows under different keys; see `bauta.benchmark.stores.key_attacks`.
        adaptive: Whether a decoder learns from protected pairs, and not from unprotected features.
        options: Settings: the fields of `ReconstructionConfig`, `GenerativeConfig` (``adversarial``,
            ``critic_channels``), `OptimisationConfig`, `StudentConfig`, `KernelConfig` or `KeyAttackConfig`, with those
            of the schedule beside them.
            An adaptive decoder may have one of three more: ``fresh``, its faces are protected anew in every epoch;
            ``draws``, it sees the mean of so many protections of each face, the victims' too; ``shared``, a question
            and no attacker: what if all faces had met the same randomness.
        victims: Attack the first so many only.
    """

    name: str
    kind: AttackKind
    adaptive: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    victims: int | None = None

    def __post_init__(self) -> None:
        good = bool(self.name) and self.kind in get_args(AttackKind)
        if not good or (self.victims is not None and self.victims < 2):
            raise UsageError(
                f"No attacker is {self.name!r} of kind {self.kind!r} on {self.victims} victims.",
                hint=f"Kinds are {', '.join(get_args(AttackKind))}.",
            )
        if self.adaptive and self.kind not in ("decoder", "generative"):
            raise UsageError(
                f"{self.name!r} of kind {self.kind!r} is neither adaptive nor not.", hint="Leave adaptive out."
            )


@dataclass(frozen=True)
class TemplateRow:
    """One row of a table.

    Attributes:
        name: What it is called in the table, unique within the recipe.
        method: A registered protector.
        options: Its settings, given to its `fit`.
        fitted: Folder of a fitted protector, below the data folder; it is loaded and not fitted.
        attackers: Names of the recipe's attackers; all by default.
        storage: Numbers are stored as ``float32`` or ``float16``; or as the protector makes them, by default.
        keyed: Whether the deployment has a key, of which only `search` knows. Other attackers protect their own faces
            under a key of their own. The row without is the one in which the key was stolen too.
        sealed: Whether records are encrypted, and attackers read the ciphertext, their own faces' under a key of their
            own; see `bauta.benchmark.stores.sealed`. The row without is the one in which the key was stolen too.
    """

    name: str
    method: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    fitted: str = ""
    attackers: tuple[str, ...] | None = None
    storage: Literal["", "float32", "float16"] = ""
    keyed: bool = False
    sealed: bool = False

    def __post_init__(self) -> None:
        if self.keyed and self.sealed:
            raise UsageError(f"Row {self.name!r} is keyed and sealed.", hint="Choose one: a seal needs no other key.")
        check_row_name(self.name)
        if bool(self.method) == bool(self.fitted):
            raise UsageError(f"Row {self.name!r} needs a method or a fitted protector.", hint="Give one of both.")
        if self.storage not in ("", "float32", "float16"):
            raise UsageError(f"Row {self.name!r}: storage is {self.storage!r}.", hint="Give float32 or float16.")


@dataclass(frozen=True)
class TemplateRecipe(ByRows):
    """A table: the same people, judges and attackers for each row.

    Attributes:
        name: What its cards are called.
        recognizer: Its features and templates are protected; it is white-box for attackers.
        judges: Recognisers that no attacker sees; the first gives the identity cosine of recovered faces.
        evaluation: Sets of pairs.
        people: Folders of other people: one half of them, by name, fits protectors, the other trains attackers.
        attackers: Who attacks.
        rows: The protectors.
        victims: How many faces of the first set are attacked, each of another person.
        asked: How many of their faces attackers have protected, drawn at random; all by default. Decoders of
            unprotected features learn from all.
        fmrs: False match rates of replay.
        exclude: Lists of people, below the data folder, who must be nowhere but in the evaluation.
        exclude_people: The same by name; by default those whom LFW and CFP spell otherwise.
        baseline: The first row, when the others are compared with it pair by pair; "" for no such comparison.
        seed: Of everything random.
        evidence: False for runs whose figures mean nothing.
        note: One sentence for the readers of the cards.
    """

    name: str
    recognizer: str
    judges: tuple[str, ...]
    evaluation: tuple[Evaluation, ...]
    people: tuple[Source, ...]
    attackers: tuple[Attack, ...]
    rows: tuple[TemplateRow, ...]
    victims: int = 200
    asked: int | None = None
    fmrs: tuple[float, ...] = (1e-2, 1e-3)
    exclude: tuple[str, ...] = ()
    exclude_people: tuple[str, ...] = OTHER_SPELLINGS
    baseline: str = ""
    seed: int = 0
    evidence: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        attackers = [attack.name for attack in self.attackers]
        checks = {
            "judges": bool(self.judges) and len({*self.judges, self.recognizer}) == len(self.judges) + 1,
            "evaluation": bool(self.evaluation),
            "people": bool(self.people),
            "attackers": len(set(attackers)) == len(attackers) and not RESERVED & set(attackers),
            "baseline": self.baseline in ("", *[row.name for row in self.rows][:1]),
            "victims": self.victims >= 2,
            "asked": self.asked is None or self.asked >= 2,
            "fmrs": bool(self.fmrs) and all(0 < fmr < 1 for fmr in self.fmrs),
        }
        hint = (
            "Names must differ, those of references are taken, the recogniser under attack is not a judge, and a "
            "baseline is the first row."
        )
        self.require(checks, hint)
        for row in self.rows:
            if unknown := set(row.attackers or ()) - set(attackers):
                raise UsageError(
                    f"Row {row.name!r}: no attacker is called {sorted(unknown)[0]!r}.", hint="See the list."
                )

    def attackers_of(self, row: TemplateRow) -> tuple[Attack, ...]:
        """Who attacks a row, in the order of the recipe."""
        return tuple(one for one in self.attackers if row.attackers is None or one.name in row.attackers)


def attacks(name: str) -> bool:
    """Whether a person belongs to the half that trains attackers, and not to the one that fits protectors.

    A digest of the name decides, so that a person is on the same side in every set and under every spelling of
    `normalise_name`.
    """
    return bool(hashlib.sha256(normalise_name(name).encode()).digest()[0] & 1)


def half(people: CropSet, *, attacking: bool) -> CropSet:
    """Those of these people who train attackers, or who fit protectors.

    Raises:
        UsageError: when there are none.
    """
    chosen = [place for place, name in enumerate(people.subjects) if attacks(name) == attacking]
    if not chosen:
        raise UsageError(f"{people.name} has nobody on one side.", hint="Add people.")
    side = "attackers" if attacking else "protectors"
    return CropSet(
        f"{people.name}, half of {side}",
        tuple(people.subjects[place] for place in chosen),
        tuple(people.images[place] for place in chosen),
    )


def carried() -> list[str]:
    """Names of the recipes that the package carries."""
    return carried_in(_FOLDER)


def read_template_recipe(recipe: str) -> TemplateRecipe:
    """A recipe by the name of one that the package carries, or from a TOML file.

    Raises:
        UsageError: when there is none, it cannot be read, or a value is not allowed.
    """
    return read(TemplateRecipe, recipe, _FOLDER)
