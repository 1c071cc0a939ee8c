"""`bauta.protect_clip`, for notebooks and scripts."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

from bauta.calls import checked
from bauta.clips.animation import read_moving
from bauta.cloaking.clip_pipeline import ClipPipeline
from bauta.cloaking.clip_report import ClipReport
from bauta.cloaking.pipeline import Pipeline
from bauta.cloaking.report_files import narrow
from bauta.cloaking.settings import Fallback, Others, ProtectSettings, Selection, Strength
from bauta.cloaking.verbs import Names, Options, Paths, Photos, Policy, names_of, paths_of, photos_of
from bauta.errors import OutputError, OutputExists, UsageError
from bauta.files import PathLike, take_name
from bauta.keys import DeploymentKey
from bauta.photo import MetadataPolicy
from bauta.progress import Progress, silent
from bauta.registry import DEFAULT_CLOAK


@checked
def protect_clip(
    clip: PathLike,
    destination: PathLike,
    *,
    method: str = DEFAULT_CLOAK,
    strength: Strength = "medium",
    options: Options | None = None,
    surrogates: Names = "auto",
    judges: Names = "auto",
    references: Photos = (),
    only: Photos = (),
    keep: Photos = (),
    fallback: Fallback = "none",
    others: Others = "leave",
    fitted: Paths = (),
    opens: DeploymentKey | None = None,
    start: float = 0.0,
    end: float | None = None,
    every: int | None = None,
    seed: int = 0,
    metadata: Policy = MetadataPolicy.PRIVATE,
    overwrite: bool = False,
    progress: Progress = silent,
) -> ClipReport:
    """Protect the faces of a clip, write it, and judge the file that was written.

    >>> report = bauta.protect_clip("party.mp4", "protected.mp4", fallback="blur")  # doctest: +SKIP
    >>> report.verdict, report.summary  # doctest: +SKIP

    Args:
        clip: An MP4, MOV, MKV, WebM or AVI file, or an animated GIF, WebP or PNG.
        destination: What is written, with the same ending; it appears when it is whole.
        method: Name of a method that can follow a face, such as the default one, ``p3-mask``, ``blur`` or ``pixelate``.
        strength: How visible the mask may be.
        options: Settings of the method by name.
        surrogates: Recognisers to attack.
        judges: Recognisers that evaluate; never one that is attacked.
        references: Other photos of the person, against which the result is judged too.
        only: Protect only the faces of the people in these photos.
        keep: Protect all faces but those of the people in these photos.
        fallback: What covers a face that no mask protects, and frames that cannot be masked.
        others: What is done to faces that the selection leaves out.
        fitted: What the method learned of people, files that `fit` gave.
        opens: Key or passphrase that these files are sealed under.
        start: First second that is protected.
        end: Last second that is protected; None for all that follow.
        every: Frames between two looks for faces; None for six looks a second, and at each frame of animated pictures.
        seed: Seed of everything random.
        metadata: What happens to the tags of the file.
        overwrite: Whether a file at the destination may be replaced.
        progress: Called with (stage, done, total).

    Raises:
        BautaError: see `bauta.errors` for what can be wrong; nothing is left at the destination then.
    """
    source, target = Path(clip), Path(destination)
    if target.suffix.lower() != source.suffix.lower():
        raise UsageError(f"{target} would hold another kind of clip.", hint=f"Use the ending {source.suffix}.")
    if target.exists() and (not overwrite or (source.exists() and target.samefile(source))):
        raise OutputExists(f"{target} exists already.", hint="Choose another name, or allow overwriting.")
    settings = ProtectSettings(
        method=method,
        options=tuple((options or {}).items()),
        strength=strength,
        surrogates=names_of(surrogates),
        judges=names_of(judges),
        seed=int(seed),
        metadata=MetadataPolicy(metadata),
        selection=Selection(only=photos_of(only), keep=photos_of(keep)),
        fallback=fallback,
        others=others,
        references=photos_of(references),
        fitted=paths_of(fitted),
        opens=opens,
        span=None if not start and end is None else (float(start), math.inf if end is None else float(end)),
        every=every,
    )
    opened = read_moving(source)
    if opened is None:
        raise UsageError(f"{source} holds one picture.", hint="bauta.protect is for photos.")
    try:
        with tempfile.TemporaryDirectory(prefix=".bauta-", dir=target.parent) as folder:
            draft = Path(folder) / target.name
            report = ClipPipeline(Pipeline(settings)).protect(opened, draft, progress=progress)
            narrow(draft, like=source)
            if overwrite:
                os.replace(draft, target)  # noqa: PTH105 - the draft's folder goes away
            else:
                take_name(draft, target)
    except OSError as error:
        raise OutputError(
            f"{target} cannot be written: {error.strerror or error}.",
            hint="Nothing was changed; check that the folder exists, is writable and has room.",
        ) from error
    return report
