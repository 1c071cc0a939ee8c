"""The verbs of the package: `bauta.protect` and `bauta.verify`, for notebooks and scripts."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bauta.calls import checked
from bauta.cloaking import apply
from bauta.cloaking.given import read_secret
from bauta.cloaking.people import People
from bauta.cloaking.pipeline import Pipeline
from bauta.cloaking.report import Report
from bauta.cloaking.restoring import FaceRecord, open_records
from bauta.cloaking.searching import search
from bauta.cloaking.settings import Box, Fallback, Others, ProtectSettings, Selection, Strength
from bauta.cloaks.base import Cloak, Reading, Work, load_cloak
from bauta.errors import NoFaceFound, UsageError
from bauta.faces.detection import detect_faces
from bauta.faces.faces import Faces
from bauta.files import PathLike, write_atomically
from bauta.judging.findings import Verdict
from bauta.keys import DeploymentKey
from bauta.learning.fitted import Fitted
from bauta.pages import as_image
from bauta.photo import MetadataPolicy, Photo, PhotoSource, read_photo
from bauta.photo.attachment import RECORDS, attached
from bauta.photo.files import SUFFIXES
from bauta.progress import Progress, silent
from bauta.registry import DEFAULT_CLOAK

FloatArray = NDArray[np.float32]
Landmarks = FloatArray | Sequence[Sequence[Sequence[float]]]
Paths = PathLike | Sequence[PathLike]
Photos = PhotoSource | Sequence[PhotoSource]
Names = str | Sequence[str]
Options = Mapping[str, object]
"""Settings by name; the method's own `Settings` say what each may be."""
Policy = MetadataPolicy | Literal["private", "keep", "strip"]


@dataclass(frozen=True, eq=False, repr=False)
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
    def verdict(self) -> Verdict:
        """``protected``, ``unconfirmed``, ``fragile``, ``partial`` or ``weak``; see `bauta.judging.findings`."""
        return self.report.verdict

    @property
    def payloads(self) -> tuple[bytes, ...]:
        """Of each face what `restore` must be given to take its edit off, b"" for nothing; keep it with the photo."""
        return self.report.payloads

    @property
    def landmarks(self) -> FloatArray:
        """(N, 5, 2) of the faces that were edited, in pixels of the upright photo: where `restore` finds them."""
        return np.array([face.landmarks for face in self.report.faces], dtype=np.float32).reshape(-1, 5, 2)

    @property
    def image(self) -> Image.Image:
        """The protected photo, upright, 8 bits per channel."""
        return as_image(self.report.saved)

    @checked
    def save(self, path: PathLike, *, overwrite: bool = False) -> Path:
        """Write the protected photo, byte for byte what was judged.

        Raises:
            UsageError: when the ending belongs to another format than the photo's.
            OutputExists: when the file exists and may not be overwritten.
            OutputError: when it cannot be written.
        """
        path, format_name = Path(path), self.report.output.format
        if path.suffix.lower() not in SUFFIXES[format_name]:
            raise UsageError(
                f"{path} would hold a {format_name} photo under another format's ending.",
                hint=f"Use the ending {SUFFIXES[format_name][0]}.",
            )
        like = next((original for original in self.originals if original.exists()), None)
        write_atomically(path, self.content, overwrite=overwrite, originals=self.originals, like=like)
        return path

    def __repr__(self) -> str:
        return f"<Protected {self.report.output.format}, {len(self.content):,} bytes: {self.report!r}>"

    def _repr_html_(self) -> str:
        """The report, for a notebook."""
        return self.report._repr_html_()

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG")
        return buffer.getvalue()


@checked
def protect(
    photo: PhotoSource,
    *,
    method: str = DEFAULT_CLOAK,
    strength: Strength = "medium",
    options: Options | None = None,
    surrogates: Names = "auto",
    judges: Names = "auto",
    references: Photos = (),
    largest: bool = False,
    only: Photos = (),
    keep: Photos = (),
    boxes: Sequence[Box] = (),
    faces: Mapping[int, str] | None = None,
    fallback: Fallback = "none",
    others: Others = "leave",
    fitted: Paths = (),
    opens: DeploymentKey | None = None,
    erasable: DeploymentKey | None = None,
    key: PathLike | None = None,
    message: str | None = None,
    like: Photos = (),
    budget: float | None = None,
    seed: int = 0,
    metadata: Policy = MetadataPolicy.PRIVATE,
    progress: Progress = silent,
) -> Protected:
    """Protect the faces of one photo and judge the result; nothing is written until `Protected.save`.

    >>> result = bauta.protect("photo.jpg")  # doctest: +SKIP
    >>> result.verdict, result.save("protected.jpg")  # doctest: +SKIP

    Args:
        photo: A path, the bytes of a file, a Pillow image, a uint8 array (H, W), (H, W, 3) or (H, W, 4), or what
            `bauta.read_photo` gave; so are all photos below. Pillow images and arrays become PNG files.
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
        faces: What is done to faces by number, such as ``{2: "blur", 3: "leave"}``: ``protect``, ``blur``, ``pixelate``
            or ``leave``. The largest face is 1; those that are not named are protected.
        fallback: What covers a face that no mask protects.
        others: What is done to faces that the selection leaves out.
        fitted: What the method learned of people, files that `fit` gave; each mask goes on its person's faces only.
        opens: Key or passphrase that these files are sealed under.
        erasable: Key or passphrase under which what was there before is sealed into the file: `restore` then takes
            every mask and cover off, whatever the method.
        key: File with the secret of a method that needs one.
        message: Text that a method hides in the face.
        like: Photos of faces that a method goes by.
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
        surrogates=names_of(surrogates),
        judges=names_of(judges),
        seed=int(seed),
        metadata=MetadataPolicy(metadata),
        selection=Selection(
            largest,
            photos_of(only),
            photos_of(keep),
            tuple(map(_box, boxes)),
            tuple((faces or {}).items()),  # type: ignore[arg-type]  # the selection checks the words
        ),
        fallback=fallback,
        others=others,
        references=photos_of(references),
        fitted=paths_of(fitted),
        opens=opens,
        erasable=erasable,
        key=None if key is None else Path(key),
        message=message,
        like=photos_of(like),
        budget=None if budget is None else float(budget),
    )
    source = read_photo(photo)
    report = Pipeline(settings).protect(source, progress=progress)
    assert report.content is not None
    return Protected(report, report.content, (source.path,) if source.path else ())


@checked
def verify(
    original: PhotoSource,
    protected: PhotoSource,
    *,
    references: Photos = (),
    surrogates: Names = "auto",
    judges: Names = "auto",
    progress: Progress = silent,
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
    settings = ProtectSettings(
        surrogates=names_of(surrogates), judges=names_of(judges), references=photos_of(references)
    )
    return Pipeline(settings).verify(read_photo(original), read_photo(protected), progress=progress)


@checked
def restore(
    photo: PhotoSource,
    *,
    method: str | None = None,
    fitted: Paths = (),
    key: PathLike | None = None,
    landmarks: Landmarks | None = None,
    payloads: Sequence[bytes] = (),
    options: Options | None = None,
    opens: DeploymentKey | None = None,
) -> Photo:
    """Take a mask off a protected photo; nothing is written until `Photo.save`.

    >>> bauta.restore("protected.png", fitted=["me.mask"]).save(Path("mine.png"))  # doctest: +SKIP

    Args:
        photo: The protected photo.
        method: That protected it; by default the one that a fitted file names.
        fitted: What the method learned, when it needs that.
        key: File with the secret, when it needs one.
        landmarks: (N, 5, 2) of the edited faces, as `Protected.landmarks`; by default what the file says of them
            counts. A file that says nothing any more, such as one that a network saved anew, is searched for faces, and
            masks are tried: they come off about.
        payloads: Of these faces, as `Protected.payloads`.
        options: Settings of the method by name, as they were when it protected.
        opens: Key or passphrase that the fitted files are sealed under. Without method and fitted files, that which a
            photo was made ``erasable`` with.

    Raises:
        UsageError: when the method's masks cannot be taken off, or something that it needs is missing.
        WrongKey: when what is sealed in the photo does not open.
        NoFaceFound: when the photo shows no face.
    """
    if method is None and opens is not None and not paths_of(fitted):
        from bauta.cloaking.erasing import erase

        return erase(read_photo(photo), opens)
    cloak, work = _holder(method, fitted, key, options, opens)
    source = read_photo(photo)
    if landmarks is not None or not any(one.secret for one in work.fitted):
        return apply.restore(cloak, source, _places(source, landmarks), payloads, work).photo
    restored, found = source, _records(source, work.fitted)
    if not found:
        return _searched(source, cloak, work)
    for one, records in zip(work.fitted, found, strict=True):
        if records:
            points = np.stack([record.landmarks for record in records])
            given, kept = replace(work, fitted=(one,)), [record.payload for record in records]
            restored = apply.restore(cloak, restored, _places(source, points), kept, given).photo
    return restored


@checked
def read(
    photo: PhotoSource,
    *,
    method: str | None = None,
    fitted: Paths = (),
    key: PathLike | None = None,
    landmarks: Landmarks | None = None,
    options: Options | None = None,
    opens: DeploymentKey | None = None,
) -> list[Reading]:
    """What a method's edits of the faces in a photo say, a `Reading` for each face.

    Args:
        photo: Protected or not.
        method: That is to read; by default the one that a fitted file names.
        fitted: What the method learned, when it needs that.
        key: File with the secret, when it needs one.
        landmarks: (N, 5, 2) of the faces; by default they are looked for.
        options: Settings of the method by name.
        opens: Key or passphrase that the fitted files are sealed under.

    Raises:
        UsageError: when the method reads nothing, or something that it needs is missing.
        NoFaceFound: when the photo shows no face.
    """
    cloak, work = _holder(method, fitted, key, options, opens)
    source = read_photo(photo)
    return apply.read(cloak, source, _places(source, landmarks), work)


def _holder(
    method: str | None,
    fitted: Paths,
    key: PathLike | None,
    options: Options | None,
    opens: DeploymentKey | None,
) -> tuple[Cloak[Any], Work]:
    """A cloak, and work with what its owner holds."""
    paths = paths_of(fitted)
    learned = tuple(Fitted.load(path, key=opens) for path in paths)
    name = method or (learned[0].method if learned else None)
    if name is None:
        raise UsageError("No method is named.", hint="Give --method NAME, or a fitted file, which names its own.")
    made = load_cloak(name)
    for path, one in zip(paths, learned, strict=True):
        one.require(name, made.version, str(path))
    work = Work.seeded(0, fitted=learned, key=None if key is None else read_secret(Path(key)))
    return made(made.configured(options or {})), work


def _records(photo: Photo, fitted: Sequence[Fitted]) -> list[list[FaceRecord]]:
    """What a protected photo keeps of the faces of each owner; nothing when it was saved anew or resized.

    Raises:
        UsageError: when it keeps nothing that opens.
    """
    sealed, name = dict(attached(photo.content)).get(RECORDS, b""), str(photo.path or "The photo")
    if not sealed:
        return []
    found = [open_records(sealed, one.secret) if one.secret else [] for one in fitted]
    if not any(found):
        raise UsageError(
            f"{name} carries a mask, and another one than was given: another person's, or an earlier one.",
            hint="Give the fitted file that it was protected with.",
        )
    size = (photo.width, photo.height)
    return found if all(record.size == size for records in found for record in records) else []


def _searched(photo: Photo, cloak: Cloak[Any], work: Work) -> Photo:
    """A photo that says nothing of its masks any more, with those taken off that can be found.

    Raises:
        UsageError: when there are none.
    """
    restored, count = search(photo, detect_faces(photo.pixels), cloak, work, People(work.fitted, lambda: ()))
    if not count:
        raise UsageError(
            f"{photo.path or 'The photo'} does not say where its faces had a mask, or was resized since; and none was "
            "found: no face becomes the person's when a mask is taken off.",
            hint="Take the file that Bauta wrote, and the fitted file that it was protected with.",
        )
    return restored


def _places(photo: Photo, landmarks: Landmarks | None) -> Faces:
    """The faces of a photo, where they are known to be or where they are found."""
    if landmarks is not None:
        points = _points(landmarks)
        boxes = np.concatenate([points.min(1), points.max(1)], axis=1)
        return Faces(boxes, points, np.ones(len(points), np.float32))
    faces = detect_faces(photo.pixels)
    if not len(faces):
        raise NoFaceFound("No face was found in the photo.", hint="Give the landmarks of its faces.")
    return faces[np.argsort(-faces.areas, kind="stable")]


def _points(landmarks: Landmarks) -> FloatArray:
    try:
        points = np.asarray(landmarks, dtype=np.float32)
    except (TypeError, ValueError):  # rows of different lengths
        points = np.empty(0, np.float32)
    if points.ndim != 3 or points.shape[1:] != (5, 2) or not len(points) or not np.isfinite(points).all():
        raise UsageError(
            f"The landmarks have the shape {list(points.shape)}, or are not numbers.",
            hint="Give (N, 5, 2), five points x, y of each face, as `Protected.landmarks`.",
        )
    return points


def _box(box: Box) -> Box:
    left, top, width, height = map(float, box)
    return left, top, width, height


def paths_of(paths: Paths) -> tuple[Path, ...]:
    """One path or several, as a tuple."""
    return tuple(map(Path, [paths] if isinstance(paths, str | os.PathLike) else paths))


def photos_of(photos: Photos) -> tuple[Path | Photo, ...]:
    """Files as their paths, and what is in memory already as photos."""
    many = photos if isinstance(photos, Sequence) and not isinstance(photos, str | bytes) else [photos]
    return tuple(Path(one) if isinstance(one, str | os.PathLike) else read_photo(one) for one in many)


def names_of(names: Names) -> tuple[str, ...] | Literal["auto"]:
    """Names as settings keep them."""
    if names == "auto":
        return "auto"
    return (names,) if isinstance(names, str) else tuple(names)
