"""Recipes: everything that decides what a trained recogniser becomes, in one TOML file.

The package carries its own recipes in ``training/recipes``. Keys are the fields of `Recipe`; `sources` and `exclude`
are paths below the data folder that the command is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, ClassVar, Literal

from bauta.benchmark.engine.recipe_files import build, read_table
from bauta.data.people import OTHER_SPELLINGS
from bauta.faces.crop_template import ARCFACE_112, DLIB_150, CropTemplate
from bauta.learning.learners import Batch, Rate
from bauta.settings import Range, Settings, Weight
from bauta.training.networks import FAMILIES
from bauta.training.starts import STARTS

CROPS = {"arcface": ARCFACE_112, "dlib": DLIB_150}


@dataclass(frozen=True)
class Recipe(Settings):
    """How one recogniser is distilled from several teachers.

    Attributes:
        name: The recogniser's name.
        family: Family of the network, see `bauta.training.networks`.
        teachers: Names of the recognisers it learns from; judges of a benchmark have no place here.
        sources: Folders (person/image) or record files of aligned 112x112 faces, below the data folder.
        exclude: Lists of people that must not be learned from (``pairs.txt`` of LFW, ``list_name.txt`` of CFP).
        exclude_people: Further names; by default those that LFW and CFP spell in another way.
        roles: What the network may be used as: ``surrogate`` or ``judge``.
        start: ``nothing``, or the public weights of `bauta.training.starts` that it starts from.
        frozen: Whether the start's features stay as they are and only what follows them learns.
        crop: Where the face lies in the crop: as ``arcface`` or as ``dlib`` aligns it.
        size: Side of the crop in pixels.
        zoom: Scale of the face in the crop against that alignment; above 1 the crop is tighter.
        dim: Length of the embedding.
        epochs: Passes over the faces, blends included; 0 ships the start as it is.
        batch: Images in a step.
        rate: Highest learning rate, reached after `warmup` of the steps; a cosine brings it to zero.
        warmup: Share of the steps.
        decay: Weight decay of AdamW.
        blends: Faces of nobody that are added, each the weighted average of two people's, as a share of the faces.
        relations: Weight of the relational term: squared differences between the cosines inside a batch.
        adversarial: Root mean square, in 1/255, of the worst-case perturbation (one gradient step in an l2 ball) that
            a random half of every batch gets. A slightly robust network is a better surrogate (Springer et al. 2021,
            "A little robustness goes a long way").
        noise: Greatest standard deviation, for pixels in [0, 1], of the Gaussian noise that is added last, drawn evenly
            from 0 on for each image: what a smoothed recogniser (`bauta.certify`) has to see through.
        features: Weight of the feature term: squared differences, under this noise, to the features that the start
            finds without it, over the mean square of these.
        keep_statistics: Whether batch normalisation keeps its statistics, which trains faster: those of the start or,
            with noise, those that the start has under it.
        seed: Of everything random.
    """

    title: ClassVar[str] = "a training recipe"
    name: str
    family: str
    teachers: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    exclude_people: tuple[str, ...] = OTHER_SPELLINGS
    roles: tuple[Literal["surrogate", "judge"], ...] = ("surrogate",)
    start: str = "nothing"
    frozen: bool = False
    crop: Literal["arcface", "dlib"] = "arcface"
    size: Annotated[int, Range(at=32, to=512)] = 112
    zoom: Annotated[float, Range(at=0.5, to=2)] = 1.0
    dim: Annotated[int, Range(at=16, to=2048)] = 256
    epochs: Annotated[float, Range(at=0, to=10_000)] = 20.0
    batch: Batch = 128
    rate: Rate = 2e-3
    warmup: Annotated[float, Range(at=0, below=1)] = 0.05
    decay: Annotated[float, Range(at=0, below=1)] = 0.05
    blends: Annotated[float, Range(at=0, to=100)] = 0.0
    relations: Weight = 1.0
    adversarial: Annotated[float, Range(at=0, to=32)] = 0.0
    noise: Annotated[float, Range(at=0, to=1)] = 0.0
    features: Weight = 0.0
    keep_statistics: bool = False
    seed: int = 0

    def problems(self) -> Iterator[tuple[str, str]]:
        """Networks and starts that do not exist or do not go together, and nothing to learn from."""
        if self.family not in FAMILIES:
            yield "family", f"There is: {', '.join(FAMILIES)}."
        for name in ("teachers", "sources"):
            if self.epochs and not getattr(self, name):
                yield name, "Name one, or set epochs to 0."
        if not self.roles:
            yield "roles", "Name surrogate, judge, or both."
        if self.start not in STARTS and (self.start != "nothing" or not self.epochs):
            yield "start", f"There is: {', '.join(STARTS)}; and nothing, with epochs above 0."
        if self.frozen and (self.start == "nothing" or self.family != "mobilenet"):
            yield "frozen", "Only the features of a mobilenet that starts from public weights can be kept."
        for name in ("features", "keep_statistics"):
            if getattr(self, name) and (self.start == "nothing" or self.family != "mobilefacenet"):
                yield name, "Only a mobilefacenet that starts from public weights has them."

    @property
    def template(self) -> CropTemplate:
        """The crop that the network reads: that of its alignment about its centre, `zoom` times as large."""
        usual = CROPS[self.crop]
        if (self.size, self.zoom) == (usual.height, 1.0):
            return usual
        scale, middle, centre = self.zoom * self.size / usual.height, (self.size - 1) / 2, (usual.height - 1) / 2
        moved = [((x - centre) * scale + middle, (y - centre) * scale + middle) for x, y in usual.points]
        points = tuple((round(x, 4), round(y, 4)) for x, y in moved)
        return CropTemplate(f"custom-{self.size}x{self.size}", self.size, self.size, points)  # type: ignore[arg-type]


def read_recipe(recipe: str) -> Recipe:
    """A recipe by the name of one that the package carries, or from a TOML file.

    Raises:
        UsageError: when there is none, it cannot be read, or a value is not allowed.
    """
    table = read_table(recipe, files("bauta.training") / "recipes")
    return build(Recipe, table, recipe, "name and family are needed; see docs/training-a-recognizer.md.")
