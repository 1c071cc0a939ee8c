"""Recipes of tables of clips; the package carries its own in ``benchmark/video_recipes``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from bauta.benchmark.engine.recipe_files import ByRows, check_row_name, read

_FOLDER = files("bauta.benchmark") / "video_recipes"


@dataclass(frozen=True)
class VideoRow:
    """What is done to clips.

    Attributes:
        name: Of the row.
        method: Name of a method; ``clean`` writes the clip as it was.
        options: Settings of the method by name.
        each_frame: Whether each of the first `FRESH` frames gets a mask of its own, as photos do.
        people: How many of the recipe's people, the first ones; None for all.
    """

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    each_frame: bool = False
    people: int | None = None

    def __post_init__(self) -> None:
        check_row_name(self.name)


@dataclass(frozen=True)
class VideoRecipe(ByRows):
    """Whose clips, and what is done to them.

    Attributes:
        name: Of the recipe.
        people: Folders of photos, in the folder of data; the face in the middle is theirs. The first photo becomes a
            clip, which is compared with the others.
        rows: What is done; the first one is ``clean``.
        fitted_people: Those of whom there are enough photos to fit a mask to; all when there are none.
        folder: Of the people.
        more: Folder of people's further photos, by the same names, to fit masks to.
        frames: Of a clip.
        surrogates: Recognisers that are attacked.
        judges: Recognisers that are not.
        seed: Of the movements and masks.
        evidence: False for smoke runs.
        note: One sentence for the readers of the cards.

    Raises:
        UsageError: when rows are missing or named twice, or a value is not allowed.
    """

    name: str
    people: tuple[str, ...]
    rows: tuple[VideoRow, ...]
    fitted_people: tuple[str, ...] = ()
    folder: str = "lfw_photos_250"
    more: str = "lfw_112/images"
    frames: int = 12
    surrogates: tuple[str, ...] = ("chip_resnet", "mobilefacenet")
    judges: tuple[str, ...] = ("edgeface_xxs", "mobileface_v2", "espdl_mbf", "mobilenet")
    seed: int = 0
    evidence: bool = True
    note: str = ""

    baseline = "clean"  # what every row is compared with

    def __post_init__(self) -> None:
        checks = {
            "rows": bool(self.rows) and (self.rows[0].name, self.rows[0].method) == (self.baseline, "clean"),
            "people": bool(self.people) and len(set(self.people)) == len(self.people),
            "fitted_people": set(self.fitted_people) <= set(self.people),
            "frames": self.frames >= 4,
            "judges": bool(self.judges) and not set(self.judges) & set(self.surrogates),
        }
        self.require(
            checks,
            hint="The first row is clean, rows and people have different names, judges are not attacked, and there are "
            "at least 4 frames.",
        )

    def people_of(self, row: VideoRow) -> tuple[str, ...]:
        """Whose clips a row is made of."""
        from bauta.cloaks.base import load_cloak

        fitted = self.fitted_people if "fitted" in load_cloak(row.method).needs else ()
        return (fitted or self.people)[: row.people]


def read_recipe(recipe: str) -> VideoRecipe:
    """A recipe by the name of one that the package carries, or from a TOML file.

    Raises:
        UsageError: when there is none, it cannot be read, or a value is not allowed.
    """
    return read(VideoRecipe, recipe, _FOLDER)
