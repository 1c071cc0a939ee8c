"""From folders of faces to a fitted protector, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bauta.data.people import assert_disjoint, excluded_names
from bauta.drafts import remove_drafts
from bauta.errors import OutputExists, UsageError
from bauta.progress import Progress
from bauta.recognizers.surrogates import load_surrogate
from bauta.registry import load_method
from bauta.templates.base import Protector, find_device
from bauta.templates.fit import FitWork
from bauta.training.faces import pack


def fit_protector(
    method: str,
    recognizer: str,
    sources: Sequence[Path],
    output: Path,
    *,
    exclude: Sequence[Path] = (),
    each: int | None = 24,
    seed: int = 0,
    licence: str = "not stated",
    work: Path | None = None,
    overwrite: bool = False,
    settings: Mapping[str, Any] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Protector:
    """Pack the faces, fit the protector, write it; interrupted, it goes on where it stopped.

    Args:
        method: Name of a registered protector.
        recognizer: Name of the recogniser it is for.
        sources: Folders ``person/image`` and ``.rec`` files of faces, 112x112, aligned to the ArcFace template.
        output: Folder for card and parts.
        exclude: Lists of people who must not be learned from: files with a name in each line, or, called
            ``pairs*``, LFW's pairs.
        each: At most so many images of a person; all when None.
        seed: Of everything random.
        licence: Terms of what is learned.
        work: Folder of packed faces and checkpoints; OUTPUT/.work by default.
        overwrite: Whether a protector in `output` may be replaced.
        settings: Of the method; see `Protector.fit_with`.
        device: Where to train, such as ``cuda``, if the method can.
        progress: Called with a stage, steps done and steps in all.

    Raises:
        UsageError: when there is no such method, setting or source, all faces are of one person, or `work` holds
            checkpoints of other faces or settings.
        OutputExists: when `output` holds a protector.
        RecognizerError: when the recogniser cannot be used, or a loss is not a number.
    """
    made: type[Protector] = load_method(method, kind="protector")
    if (output / "card.toml").exists() and not overwrite:
        raise OutputExists(f"{output} holds a protector.", hint="Give another folder, or --overwrite.")
    if device != "cpu" and not made.accelerated:
        raise UsageError(f"{method} learns on the CPU only, not on {device!r}.", hint="Leave device out.")
    find_device(device)
    surrogate = load_surrogate(recognizer)
    for path in (*sources, *exclude):
        if not path.exists():
            raise UsageError(f"{path} is missing.", hint="Correct its name.")
    excluded = excluded_names(exclude)
    folder = work or output / ".work"
    for place in (output, folder):
        remove_drafts(place)
    faces, _ = pack(sources, folder / "faces", excluded)
    assert_disjoint(faces.people, excluded)
    chosen = first_of_each(faces.people, each)
    people = [faces.people[index] for index in chosen]
    if len(set(people)) < 2:
        raise UsageError("All faces are of one person.", hint="Give faces of many people to learn from.")
    images = torch.from_numpy(np.ascontiguousarray(faces.pixels[chosen].transpose(0, 3, 1, 2)))
    names = ", ".join(path.name for path in sources)
    protector: Protector = made.fit_with(
        images,
        settings or {},
        FitWork(
            surrogate,
            seed % (1 << 31),
            people=tuple(people),
            licence=licence,
            data=f"{names}: {len(images)} faces of {len(set(people))} people",
            folder=folder,
            progress=progress,
            device=device,
        ),
    )
    protector.save(output, overwrite=overwrite)
    return protector


def first_of_each(people: Sequence[str], each: int | None) -> list[int]:
    """Indices of the first `each` images of every person."""
    seen: dict[str, int] = {}
    chosen = []
    for index, person in enumerate(people):
        seen[person] = seen.get(person, 0) + 1
        if each is None or seen[person] <= each:
            chosen.append(index)
    return chosen
