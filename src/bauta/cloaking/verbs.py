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
from bauta.cloaking.pipeline import Pipeline, view_of
from bauta.cloaking.report import Report
from bauta.cloaking.roles import choose_roles
from bauta.cloaking.secret import read_secret
from bauta.cloaking.settings import Box, Fallback, Others, ProtectSettings, Selection, Strength
from bauta.cloaks.base import Cloak, FitsPerson, Reading, Work, load_cloak
from bauta.errors import NoFaceFound, UsageError
from bauta.faces.detection import detect_faces
from bauta.faces.faces import Faces
from bauta.files import PathLike, write_atomically
from bauta.judging.findings import Verdict
from bauta.learning.fitted import Fitted
from bauta.photo import MetadataPolicy, Photo, PhotoSource, read_photo
from bauta.photo.files import SUFFIXES
from bauta.progress import Progress, silent, steps_of
from bauta.recognizers.calibration import calibrated
from bauta.recognizers.ensemble import Ensemble
from bauta.recognizers.surrogates import load_surrogate
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
        return Image.fromarray((self.report.saved * 255).round().clip(0, 255).astype(np.uint8))

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
        fitted: What the method learned of people, files that `fit` gave.
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
        surrogates=_names(surrogates),
        judges=_names(judges),
        seed=int(seed),
        metadata=MetadataPolicy(metadata),
        selection=Selection(
            largest,
            _photos(only),
            _photos(keep),
            tuple(map(_box, boxes)),
            tuple((faces or {}).items()),  # type: ignore[arg-type]  # the selection checks the words
        ),
        fallback=fallback,
        others=others,
        references=_photos(references),
        fitted=_paths(fitted),
        key=None if key is None else Path(key),
        message=message,
        like=_photos(like),
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
    settings = ProtectSettings(surrogates=_names(surrogates), judges=_names(judges), references=_photos(references))
    return Pipeline(settings).verify(read_photo(original), read_photo(protected), progress=progress)


@checked
def fit(
    method: str,
    photos: Photos,
    *,
    options: Options | None = None,
    strength: Strength = "medium",
    surrogates: Names = "auto",
    judges: Names = "auto",
    seed: int = 0,
    progress: Progress = silent,
) -> Fitted:
    """Let a method learn a person once, from a few photos; the largest face of each counts.

    >>> mask = bauta.fit("p3-mask", ["me/1.jpg", "me/2.jpg", "me/3.jpg"])  # doctest: +SKIP
    >>> mask.save(Path("me.mask"))  # doctest: +SKIP
    >>> bauta.protect("party.jpg", method="p3-mask", fitted=["me.mask"])  # doctest: +SKIP

    Args:
        method: Name of a method that fits; `bauta methods NAME` says whether one does.
        photos: Of one person.
        options: Settings of the method by name.
        strength: How visible the mask may be.
        surrogates: Recognisers to attack; what they say of the person's photos confirms nothing from then on.
        judges: Recognisers that will judge, and so are not attacked.
        seed: Of everything random.
        progress: Called with (stage, done, total).

    Raises:
        UsageError: when the method fits nothing, or a photo shows no face.
        BautaError: see `bauta.errors` for what else can be wrong.
    """
    made = require_fitting(method)
    given = _photos(photos)
    if not given:
        raise UsageError("There are no photos to learn from.", hint="Give a few photos of one person.")
    settings = ProtectSettings(surrogates=_names(surrogates), judges=_names(judges), seed=seed)
    roles = choose_roles(settings)
    views = []
    for done, photo in enumerate(given):
        progress("looking for faces", done, len(given))
        views.append(view_of(read_photo(photo), made.view))
    ensemble = Ensemble([load_surrogate(card) for card in roles.surrogates])
    work = Work.seeded(
        seed,
        ensemble,
        thresholds=calibrated(roles.surrogates, settings.fmr),
        progress=steps_of(progress, "learning the person"),
    )
    fitted: Fitted = made.fit(views, made.configured(options or {}, strength=strength), work)
    # Whoever was attacked is a teacher, whatever the method says.
    teachers = tuple(dict.fromkeys((*fitted.teachers, *ensemble.names)))
    return replace(fitted, method=method, teachers=teachers, version=made.version)


def require_fitting(method: str) -> Any:
    """The class of a cloak that fits.

    Raises:
        UsageError: when there is none of that name, or it learns nothing of a person.
    """
    made = load_cloak(method)
    if not issubclass(made, FitsPerson):
        raise UsageError(
            f"{method} learns nothing of a person: it makes each photo's mask anew.",
            hint=f"Run `bauta protect --method {method}` at once.",
        )
    return made


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
) -> Photo:
    """Take a mask off a protected photo; nothing is written until `Photo.save`.

    >>> bauta.restore("protected.png", fitted=["me.mask"]).save(Path("mine.png"))  # doctest: +SKIP

    Args:
        photo: The protected photo.
        method: That protected it; by default the one that a fitted file names.
        fitted: What the method learned, when it needs that.
        key: File with the secret, when it needs one.
        landmarks: (N, 5, 2) of the edited faces, as `Protected.landmarks`; by default faces are looked for again, which
            finds them a little beside.
        payloads: Of these faces, as `Protected.payloads`.
        options: Settings of the method by name, as they were when it protected.

    Raises:
        UsageError: when the method's masks cannot be taken off, or something that it needs is missing.
        NoFaceFound: when the photo shows no face.
    """
    cloak, work = _holder(method, fitted, key, options)
    source = read_photo(photo)
    return apply.restore(cloak, source, _places(source, landmarks), payloads, work).photo


@checked
def read(
    photo: PhotoSource,
    *,
    method: str | None = None,
    fitted: Paths = (),
    key: PathLike | None = None,
    landmarks: Landmarks | None = None,
    options: Options | None = None,
) -> list[Reading]:
    """What a method's edits of the faces in a photo say, a `Reading` for each face.

    Args:
        photo: Protected or not.
        method: That is to read; by default the one that a fitted file names.
        fitted: What the method learned, when it needs that.
        key: File with the secret, when it needs one.
        landmarks: (N, 5, 2) of the faces; by default they are looked for.
        options: Settings of the method by name.

    Raises:
        UsageError: when the method reads nothing, or something that it needs is missing.
        NoFaceFound: when the photo shows no face.
    """
    cloak, work = _holder(method, fitted, key, options)
    source = read_photo(photo)
    return apply.read(cloak, source, _places(source, landmarks), work)


def _holder(
    method: str | None, fitted: Paths, key: PathLike | None, options: Options | None
) -> tuple[Cloak[Any], Work]:
    """A cloak, and work with what its owner holds."""
    learned = [Fitted.load(path) for path in _paths(fitted)]
    name = method or (learned[0].method if learned else None)
    if name is None:
        raise UsageError("No method is named.", hint="Give --method NAME, or a fitted file, which names its own.")
    made = load_cloak(name)
    checked = tuple(Fitted.load(path, method=name, version=made.version) for path in _paths(fitted))
    work = Work.seeded(0, fitted=checked, key=None if key is None else read_secret(Path(key)))
    return made(made.configured(options or {})), work


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


def _paths(paths: Paths) -> tuple[Path, ...]:
    return tuple(map(Path, [paths] if isinstance(paths, str | os.PathLike) else paths))


def _photos(photos: Photos) -> tuple[Path | Photo, ...]:
    """Files as their paths, and what is in memory already as photos."""
    many = photos if isinstance(photos, Sequence) and not isinstance(photos, str | bytes) else [photos]
    return tuple(Path(one) if isinstance(one, str | os.PathLike) else read_photo(one) for one in many)


def _names(names: Names) -> tuple[str, ...] | Literal["auto"]:
    if names == "auto":
        return "auto"
    return (names,) if isinstance(names, str) else tuple(names)
