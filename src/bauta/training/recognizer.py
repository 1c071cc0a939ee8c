"""From a folder of faces and a recipe to a recogniser that ships, in one call."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from bauta.data.people import assert_disjoint, excluded_names
from bauta.errors import UsageError, missing_extra
from bauta.progress import Progress
from bauta.recognizers.cards import RecognizerCard, require_role
from bauta.recognizers.catalog import find_card
from bauta.training.distillation import distil, populate
from bauta.training.export import ship
from bauta.training.faces import FaceSet, pack
from bauta.training.networks import build_network
from bauta.training.recipes import Recipe

NEEDED = ("lightning_fabric", "onnxscript")
"""Packages of the extra ``train``."""


def train_recognizer(
    recipe: Recipe,
    data: Path,
    work: Path,
    output: Path,
    *,
    threads: int = 1,
    workers: int = 0,
    progress: Progress | None = None,
) -> RecognizerCard:
    """Pack the faces, let the teachers embed them, train, export; every step goes on where it was stopped.

    Args:
        recipe: What to train.
        data: Folder with the recipe's sources and lists of excluded people.
        work: Folder for packed faces, embeddings, checkpoints and the log.
        output: Folder for ``NAME.safetensors`` and ``NAME.toml``.
        threads: Threads of torch and of ONNX Runtime.
        workers: Processes that prepare batches.
        progress: Called with a stage, steps done and steps in all.

    Returns:
        The card of the trained network.

    Raises:
        MissingExtra: when a package is missing.
        UsageError: when a source or a list is missing, or `work` belongs to another recipe.
        RecognizerError: when a teacher cannot be used, or is a judge only and the student is to be attacked.
        OutputError: when a file cannot be written.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:  # said now, and not after hours
        raise missing_extra(*missing, what="Training")
    if "surrogate" in recipe.roles:  # what attacks a judge's student attacks the judge
        for teacher in recipe.teachers:
            require_role(find_card(teacher), "surrogate")
    import torch

    torch.set_num_threads(threads)
    if not recipe.epochs:
        return ship(build_network(recipe.family, recipe.dim, start=recipe.start), recipe, {}, output)
    faces = collect_faces(recipe, data, work / "faces")
    population = populate(faces, recipe.blends, recipe.seed)
    network, figures = distil(
        recipe, population, work / recipe.name, embeddings=work / "teachers", threads=threads, workers=workers,
        progress=progress,
    )  # fmt: skip
    return ship(network, recipe, figures | {"faces_sha256": faces.sha256}, output)


def collect_faces(recipe: Recipe, data: Path, work: Path) -> FaceSet:
    """The recipe's faces, packed, without the people it excludes.

    Raises:
        UsageError: when a source or a list is missing.
    """
    excluded = excluded_names((data / name for name in recipe.exclude), recipe.exclude_people)
    sources = [data / name for name in recipe.sources]
    for path in sources:
        if not path.exists():
            raise UsageError(f"The source {path} is missing.", hint="Correct --data or the recipe.")
    faces, _ = pack(sources, work, excluded)
    assert_disjoint(faces.people, excluded)
    return faces
