"""The verbs of the package: `bauta.protect` and `bauta.verify`, for notebooks and scripts."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from bauta.cloaking.pipeline import Pipeline, Progress
from bauta.cloaking.report import Report
from bauta.cloaking.settings import Box, ProtectSettings, Selection, Strength
from bauta.photo import MetadataPolicy, Photo, read_photo, write_atomically

Source = str | Path | Photo
_FRAME = 'style="width:100%;height:720px;border:0"'

Names = Sequence[str] | Literal["auto"]


@dataclass(frozen=True, eq=False)
class Protected:
    """A protected photo and the answer to whether it worked; a notebook shows both.

    Attributes:
        report: The answer.
        content: The bytes of the protected photo, in the format of the original.
        originals: Files that `save` never replaces.
    """

    report: Report
    content: bytes
    originals: tuple[Path, ...] = ()

    @property
    def verdict(self) -> str:
        """``protected``, ``partial``, ``unconfirmed`` or ``weak``."""
        return self.report.verdict

    @property
    def image(self) -> Image.Image:
        """The protected photo, upright, 8 bits per channel."""
        return Image.fromarray((self.report.saved * 255).round().clip(0, 255).astype(np.uint8))

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the protected photo, byte for byte what was judged.

        Raises:
            OutputExists: when the file exists and may not be overwritten.
            OutputError: when it cannot be written.
        """
        write_atomically(Path(path), self.content, overwrite=overwrite, originals=self.originals)
        return Path(path)

    def _repr_html_(self) -> str:
        """The report, framed so that its styles do not touch the notebook."""
        from markupsafe import escape

        page = escape(self.report.to_html())
        return f'<iframe srcdoc="{page}" sandbox="allow-scripts" {_FRAME}></iframe>'

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG")
        return buffer.getvalue()


def protect(
    photo: Source,
    *,
    method: str = "tip-im",
    strength: Strength = "medium",
    options: Mapping[str, Any] | None = None,
    surrogates: Names = "auto",
    judges: Names = "auto",
    references: Sequence[str | Path] = (),
    largest: bool = False,
    only: Sequence[str | Path] = (),
    keep: Sequence[str | Path] = (),
    boxes: Sequence[Box] = (),
    budget: float | None = None,
    seed: int = 0,
    metadata: MetadataPolicy = MetadataPolicy.PRIVATE,
    progress: Progress = lambda stage, done, total: None,
) -> Protected:
    """Protect the faces of one photo and judge the result; nothing is written until `Protected.save`.

    >>> result = bauta.protect("photo.jpg")  # doctest: +SKIP
    >>> result.verdict, result.save("protected.jpg")  # doctest: +SKIP

    Args:
        photo: A file, or a photo read by `bauta.read_photo`.
        method: Name of the method; `bauta.list_methods` shows them.
        strength: How visible the mask may be.
        options: Settings of the method by name, such as ``{"mode": "combined", "iterations": 30}``.
        surrogates: Recognisers to attack.
        judges: Recognisers that evaluate; never one that is attacked.
        references: Other photos of the person, against which the result is judged.
        largest: Protect the largest face only.
        only: Protect only the faces of the people in these photos.
        keep: Protect all faces but those of the people in these photos.
        boxes: Faces given by hand, (x, y, width, height) in pixels of the upright photo.
        budget: Seconds that one face may take.
        seed: Seed of everything random.
        metadata: What happens to EXIF, XMP and thumbnails.
        progress: Called with (stage, done, total).

    Raises:
        BautaError: see `bauta.errors` for what can be wrong.
    """
    settings = ProtectSettings(
        method=method,
        options=tuple((options or {}).items()),
        strength=strength,
        surrogates=_names(surrogates),
        judges=_names(judges),
        seed=seed,
        metadata=metadata,
        selection=Selection(largest, _paths(only), _paths(keep), tuple(boxes)),
        references=_paths(references),
        budget=budget,
    )
    source = _read(photo)
    report = Pipeline(settings).protect(source, progress=progress)
    assert report.content is not None
    return Protected(report, report.content, (source.path,) if source.path else ())


def verify(
    original: Source,
    protected: Source,
    *,
    references: Sequence[str | Path] = (),
    surrogates: Names = "auto",
    judges: Names = "auto",
    progress: Progress = lambda stage, done, total: None,
) -> Report:
    """Judge a protected photo against its original.

    Args:
        original: The photo before protection.
        protected: The photo after it; it may have been resized or re-encoded since.
        references: Other photos of the person.
        surrogates: Recognisers that the mask was made against; they confirm nothing.
        judges: Recognisers that evaluate.
        progress: Called with (stage, done, total).

    Raises:
        BautaError: see `bauta.errors` for what can be wrong.
    """
    settings = ProtectSettings(surrogates=_names(surrogates), judges=_names(judges), references=_paths(references))
    return Pipeline(settings).verify(_read(original), _read(protected), progress=progress)


def _read(photo: Source) -> Photo:
    return photo if isinstance(photo, Photo) else read_photo(Path(photo))


def _paths(paths: Sequence[str | Path]) -> tuple[Path, ...]:
    return tuple(Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths))


def _names(names: Names) -> tuple[str, ...] | Literal["auto"]:
    return "auto" if names == "auto" else tuple([names] if isinstance(names, str) else names)
