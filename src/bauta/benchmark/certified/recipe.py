"""Recipes of tables of certified answers; the package carries its own in ``benchmark/certified_recipes``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from bauta.benchmark.engine.recipe_files import ByRows, check_row_name, read
from bauta.certify.bounds import Smoothing, require_copies

_FOLDER = files("bauta.benchmark") / "certified_recipes"


@dataclass(frozen=True)
class CertifiedRow:
    """A recogniser at one strength of noise.

    Attributes:
        name: Of the row.
        recognizer: Its name; a surrogate.
        sigma: Of the noise.
    """

    name: str
    recognizer: str
    sigma: float

    def __post_init__(self) -> None:
        check_row_name(self.name)


@dataclass(frozen=True)
class CertifiedRecipe(ByRows):
    """What is certified of which recognisers.

    Attributes:
        name: Of the recipe.
        rows: Recognisers and noise.
        radii: L2 lengths over the aligned crop.
        n: Noisy copies of a face.
        alpha: Greatest probability that a certificate is wrong.
        enrolment: Noisy copies of a reference.
        pairs: Genuine pairs of LFW, of as many people, and as many of different ones.
        plain_pairs: Genuine pairs for the accuracy without noise.
        fmr: False match rate of the threshold, which is set on frontal photos of CFP.
        folder: Of the pairs, in the folder of data.
        calibration: Of CFP.
        seed: Of the choice of pairs and of the noise.
        evidence: False for smoke runs.
        note: One sentence for the readers of the cards.

    Raises:
        UsageError: when rows are missing or named twice, or the copies cannot certify the radii.
    """

    name: str
    rows: tuple[CertifiedRow, ...]
    radii: tuple[float, ...] = (0.15, 0.25)
    n: int = 1000
    alpha: float = 1e-3
    enrolment: int = 0
    pairs: int = 60
    plain_pairs: int = 300
    fmr: float = 1e-3
    folder: str = "lfw_112"
    calibration: str = "cfp_112"
    seed: int = 0
    evidence: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        checks = {
            "radii": bool(self.radii) and all(radius > 0 for radius in self.radii),
            "pairs": self.pairs >= 2,
            "plain_pairs": self.plain_pairs >= 2,
            "fmr": 0 < self.fmr < 1,
        }
        self.require(checks, hint="Rows have different names, radii are above 0, and there are at least 2 pairs.")
        for row in self.rows:
            require_copies(max(self.radii), self.smoothing(row))

    def smoothing(self, row: CertifiedRow) -> Smoothing:
        """The noise of a row."""
        return Smoothing(row.sigma, self.n, self.alpha, self.enrolment)


def read_recipe(recipe: str) -> CertifiedRecipe:
    """A recipe by the name of one that the package carries, or from a TOML file.

    Raises:
        UsageError: when there is none, it cannot be read, or a value is not allowed.
    """
    return read(CertifiedRecipe, recipe, _FOLDER)
