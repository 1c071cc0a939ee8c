"""Recipes of `bauta.benchmark.adaptive.run`: one TOML file says who is protected, who attacks, and on whom they train.

The package carries its own in ``benchmark/adaptive_recipes``. Keys are the fields of `AdaptiveRecipe`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files

from bauta.attacks.adapt import FineTuningConfig
from bauta.attacks.link import StudentConfig
from bauta.benchmark.adaptive.protected import Protection
from bauta.benchmark.crop_sets import Source
from bauta.benchmark.engine.recipe_files import ByRows, build, carried_in, read_table
from bauta.benchmark.photos.recipe import Dataset, Row
from bauta.cloaks.base import load_cloak
from bauta.data.people import OTHER_SPELLINGS
from bauta.errors import UsageError
from bauta.registry import list_methods

_FOLDER = files("bauta.benchmark") / "adaptive_recipes"

COMBINED = "all"
"""What an attacker trained on who saw the photos of every method."""


@dataclass(frozen=True)
class AdaptiveRecipe(ByRows):
    """A table of methods against attackers.

    Attributes:
        name: What its cards are called.
        evaluation: Pairs of aligned crops, of kind ``lfw`` or ``people``.
        training: Whom attackers train on.
        calibration: Whom thresholds are found on after training.
        rows: The methods. Attackers train on each but ``clean``.
        surrogates: Recognisers that methods attack.
        judges: Newer recognisers.
        recognizer: The attacker's own, which is none of those.
        purifiers: Registered ones.
        exclude: Lists of people, below the data folder, who are drawn into no set: LFW's ``pairs*.txt``, or a name on
            each line.
        exclude_people: The same, by name; by default those whom LFW and CFP spell otherwise.
        fine_tuning: Settings.
        student: Settings.
        pairs: Pairs to evaluate, of as many people; all people when None.
        fmr: False match rate of the thresholds.
        batch: Crops whose masks are made together.
        seed: Of everything random.
        evidence: False for runs whose figures mean nothing.
        note: One sentence for the readers of the cards.
    """

    name: str
    evaluation: Dataset
    training: tuple[Source, ...]
    calibration: tuple[Source, ...]
    rows: tuple[Row, ...]
    surrogates: tuple[str, ...]
    judges: tuple[str, ...]
    recognizer: str
    purifiers: tuple[str, ...] = (
        "purify-blur", "purify-jpeg", "purify-bit-depth", "purify-total-variation", "purify-denoiser",
    )  # fmt: skip
    exclude: tuple[str, ...] = ()
    exclude_people: tuple[str, ...] = OTHER_SPELLINGS
    fine_tuning: FineTuningConfig = field(default_factory=lambda: FineTuningConfig(epochs=4, rate=3e-4))
    student: StudentConfig = field(default_factory=lambda: StudentConfig(epochs=4, rate=3e-4, flip=True))
    pairs: int | None = None
    fmr: float = 1e-2
    batch: int = 15
    seed: int = 0
    evidence: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        registered = [card.name for card in list_methods(kind="purifier")]
        checks: dict[str, bool] = {
            "name": bool(self.name) and not set(self.name) & set("/\\ "),
            "rows": bool(names) and len(set(names)) == len(names) and COMBINED not in names,
            "evaluation": self.evaluation.kind in ("lfw", "people") and self.evaluation.face == "aligned",
            "training": bool(self.training),
            "calibration": bool(self.calibration),
            "judges": bool(self.judges) and len(set(self.judges)) == len(self.judges),
            "purifiers": len(set(self.purifiers)) == len(self.purifiers) and set(self.purifiers) <= set(registered),
            "pairs": self.pairs is None or self.pairs >= 2,
            "fmr": 0 < self.fmr < 1,
            "batch": 1 <= self.batch <= 256,
        }
        for name, good in checks.items():
            if not good:
                raise UsageError(
                    f"Recipe {self.name!r}: {name} is {names if name == 'rows' else getattr(self, name)!r}.",
                    hint=f"Purifiers are {', '.join(registered)}; for the rest see docs/adaptive-attackers.md.",
                )
        for row in self.rows:
            if row.pairs is not None:
                raise UsageError(f"Row {row.name!r}: pairs is {row.pairs}.", hint="All rows have the recipe's pairs.")
            load_cloak(row.method).configured(row.options)

    def protection(self, row: Row) -> Protection:
        """How a row protects crops."""
        attacks = "surrogates" in load_cloak(row.method).needs
        surrogates = (row.surrogates or self.surrogates) if attacks else ()
        return Protection(row.method, dict(row.options), surrogates, self.seed, self.fmr)


def carried() -> list[str]:
    """Names of the adaptive recipes that the package carries."""
    return carried_in(_FOLDER)


def read_recipe(recipe: str) -> AdaptiveRecipe:
    """An adaptive recipe by the name of one that the package carries, or from a TOML file.

    Raises:
        UsageError: when there is none, it cannot be read, or a value is not allowed.
    """
    table = read_table(recipe, _FOLDER)
    if isinstance(evaluation := table.get("evaluation"), dict):
        table["evaluation"] = {"kind": "lfw", "face": "aligned"} | evaluation
    return build(AdaptiveRecipe, table, recipe)
