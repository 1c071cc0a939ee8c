"""From a photo to a protected photo and an honest answer: detect, select, perturb, save, read back, judge."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.cloaking.apply import Change, apply, refused, require
from bauta.cloaking.report import FaceResult, Report, environment
from bauta.cloaking.report_data import FileFacts, MaskFacts, printable
from bauta.cloaking.roles import choose_roles
from bauta.cloaking.settings import ProtectSettings
from bauta.cloaks.base import Need, Work, load_cloak
from bauta.cloaks.view import FaceView, ViewSpec, cut_view
from bauta.errors import NoFaceFound, NotCalibrated, UsageError
from bauta.faces.alignment import extract_crops
from bauta.faces.detection import detect_faces, face_from_box
from bauta.faces.faces import Faces
from bauta.judging.conditions import CONDITIONS
from bauta.judging.findings import ORIGINAL
from bauta.judging.verification import JudgeWithThresholds, Reference, refuse_another_photo, verify_faces
from bauta.learning.fitted import Fitted
from bauta.photo import Photo, read_photo
from bauta.progress import Progress, silent, steps_of
from bauta.rates import SELECTION_FMR
from bauta.recognizers.calibration import calibrated
from bauta.recognizers.ensemble import Ensemble
from bauta.recognizers.judges import load_judge
from bauta.recognizers.surrogates import Surrogate, load_surrogate

FloatArray = NDArray[np.float32]


class Pipeline:
    """Protects and verifies photos with one set of recognisers, loaded when first needed.

    Args:
        settings: What to do; who is attacked and who judges is decided at once.

    Raises:
        UsageError: when the method does not know an option.
        RecognizerError: when no recognisers fit the settings.
    """

    def __init__(self, settings: ProtectSettings) -> None:
        self.settings = settings
        method = load_cloak(settings.method)
        self.fitted = tuple(
            Fitted.load(path, method=settings.method, version=method.version) for path in settings.fitted
        )
        if "surrogates" not in method.needs and settings.surrogates != "auto":
            raise UsageError(
                f"{settings.method} attacks no recogniser while it protects.", hint="Leave --surrogates out."
            )
        given: dict[Need, bool] = {
            "surrogates": True,
            "key": settings.key is not None,
            "message": settings.message is not None,
            "fitted": bool(settings.fitted),
            "reference": bool(settings.like),
        }
        require(method, [need for need, there in given.items() if there])
        self.key = None if settings.key is None else read_secret(settings.key)
        teachers = {teacher for one in self.fitted for teacher in one.teachers}
        self.roles = choose_roles(settings, attacks="surrogates" in method.needs, fitted_against=teachers)
        self.config = method.configured(dict(settings.options), strength=settings.strength)
        self.cloak = method(self.config)

    def protect(
        self,
        photo: Photo,
        destination: Path | None = None,
        *,
        overwrite: bool = False,
        progress: Progress = silent,
    ) -> Report:
        """Protect one photo and judge the file that comes out.

        Args:
            photo: As read.
            destination: Where the protected photo is saved; None keeps it in memory.
            overwrite: Whether a file at the destination may be replaced.
            progress: Called as work advances.

        Raises:
            NoFaceFound: when there is nothing to protect.
            OutputError: when the destination cannot be written.
        """
        began = time.monotonic()
        photo = photo.cleared()
        progress("looking for faces", 0, 1)
        faces, spared = self.select(photo)
        detected = time.monotonic()
        applied = apply(self.cloak, photo, faces, self._work(progress), budget=self.settings.budget)
        masked = time.monotonic()
        protected, change = applied.photo, applied.change
        if destination is not None and any(change.payloads):
            raise UsageError(
                f"To take what {self.settings.method} does off again, something must be kept that a folder has no "
                "place for.",
                hint="Protect the photo from Python: `bauta.protect` hands it over.",
            )
        faces, unprotected = _divided(photo, faces, change.left)
        if destination is None:
            content = protected.encode(metadata=self.settings.metadata)
            saved = read_photo(content)
        else:
            protected.save(destination, metadata=self.settings.metadata, overwrite=overwrite)
            saved = read_photo(destination)
            content = None
        report = self._judge(photo, saved, faces, _facts(change), spared, unprotected, progress)
        report = replace(report, payloads=change.payloads, removed=photo.removed(self.settings.metadata))
        seconds = {
            "detection": detected - began,
            "mask": masked - detected,
            "verification": time.monotonic() - masked,
            "total": time.monotonic() - began,
        }
        return report.with_seconds(seconds, content)

    def verify(self, original: Photo, protected: Photo, *, progress: Progress = silent) -> Report:
        """Judge a photo that was protected before, here or elsewhere.

        Raises:
            NoFaceFound: when the original shows no face.
            UsageError: when the two are not the same photo.
        """
        began = time.monotonic()
        original = original.cleared()
        (height, width), (other_height, other_width) = original.pixels.shape[:2], protected.pixels.shape[:2]
        if abs(other_width / width * height / other_height - 1) > 0.02:
            raise UsageError(
                f"The protected photo has another shape ({other_width}x{other_height}) "
                f"than the original ({width}x{height}).",
                hint="Give the original of the same photo, not cropped.",
            )
        progress("looking for faces", 0, 1)
        faces, spared = self.select(original)
        refuse_another_photo(original.pixels, protected.pixels, faces)
        detected = time.monotonic()
        faces, unprotected = _divided(original, faces, refused(self.cloak, original, faces))
        report = self._judge(original, protected, faces, [None] * len(faces), spared, unprotected, progress)
        seconds = {
            "detection": detected - began,
            "verification": time.monotonic() - detected,
            "total": time.monotonic() - began,
        }
        return report.with_seconds(seconds, None)

    def judge_again(
        self,
        original: Photo,
        protected: Photo,
        masks: Sequence[Mapping[str, Any]],
        *,
        progress: Progress = silent,
    ) -> Report | None:
        """Judge a photo that an earlier run protected with the same settings; None when its faces are others now.

        Args:
            original: The photo before protection.
            protected: The photo that was saved.
            masks: Of each masked face its ``box``, and what its ``mask`` took, as the earlier run recorded them.
            progress: Called as work advances.
        """
        began = time.monotonic()
        original = original.cleared()
        progress("looking for faces", 0, 1)
        faces, spared = self.select(original)
        detected = time.monotonic()
        faces, unprotected = _divided(original, faces, refused(self.cloak, original, faces))
        boxes = np.array([face["box"] for face in masks])
        if boxes.shape != faces.boxes.shape or not np.allclose(boxes, faces.boxes, atol=1):
            return None
        facts = [MaskFacts(**face["mask"]) if face["mask"] else None for face in masks]
        report = self._judge(original, protected, faces, facts, spared, unprotected, progress)
        seconds = {
            "detection": detected - began,
            "verification": time.monotonic() - detected,
            "total": time.monotonic() - began,
        }
        return report.with_seconds(seconds, None)

    def select(self, photo: Photo) -> tuple[Faces, list[list[float]]]:
        """The faces to protect, largest first, and the boxes of those that are left as they are.

        Raises:
            NoFaceFound: when none is found or none is selected.
        """
        selection = self.settings.selection
        if selection.boxes:
            given = Faces.join([face_from_box(photo.pixels, box) for box in selection.boxes])
            return given, given.elsewhere(detect_faces(photo.pixels)).boxes.tolist()
        faces = detect_faces(photo.pixels)
        if not len(faces):
            raise NoFaceFound(
                f"No face was found in {_name(photo)}.",
                hint="Point to it with --box x,y,width,height, in pixels of the upright photo.",
            )
        faces = faces[np.argsort(-faces.areas, kind="stable")]
        chosen = np.ones(len(faces), dtype=np.bool_)
        if selection.largest:
            chosen[1:] = False
        elif selection.only:
            chosen = self._matches(photo, faces, selection.only)
        elif selection.keep:
            chosen = ~self._matches(photo, faces, selection.keep)
        if not chosen.any():
            raise NoFaceFound(
                f"None of the {len(faces)} faces in {_name(photo)} is selected.",
                hint="Check the reference photos, or leave out --only and --keep to protect every face.",
            )
        return faces[chosen], faces[~chosen].boxes.tolist()

    @cached_property
    def surrogates(self) -> list[Surrogate]:
        """The networks to attack."""
        return [load_surrogate(card) for card in self.roles.surrogates]

    @cached_property
    def judges(self) -> list[JudgeWithThresholds]:
        """The judges."""
        return [
            JudgeWithThresholds(load_judge(card), card.name in self.roles.attacked, self.roles.thresholds[card.name])
            for card in self.roles.judges
        ]

    @cached_property
    def references(self) -> list[Reference]:
        """The photos of the person against which results are judged."""
        seen: list[Reference] = []
        taken = {ORIGINAL}
        for path in self.settings.references:
            reference = self._see(path)
            name, number = reference.name, 1
            while name in taken:  # comparisons go by name, and folders may hold files of one name
                number += 1
                name = f"{reference.name} ({number})"
            taken.add(name)
            seen.append(replace(reference, name=name))
        return seen

    def prepare(self) -> None:
        """Look at every reference photo now, so that a bad one stops a run before it begins."""
        _ = self.references
        for path in (*self.settings.selection.only, *self.settings.selection.keep):
            self._selected(path)

    def _selected(self, path: Path | Photo) -> dict[str, FloatArray]:
        """(K, D) embeddings by each judge of everybody in a photo that selects people."""
        seen: dict[Path | Photo, dict[str, FloatArray]] = self.__dict__.setdefault("_seen", {})
        if path not in seen:
            photo, faces = _faces_of(path)
            seen[path] = self._embed(photo, faces)
        return seen[path]

    def _see(self, path: Path | Photo) -> Reference:
        photo, faces = _faces_of(path)
        embeddings = {name: found[0] for name, found in self._embed(photo, faces.largest()).items()}
        return Reference(printable(photo.path.name if photo.path else "photo in memory"), photo.sha256, embeddings)

    def _embed(self, photo: Photo, faces: Faces) -> dict[str, FloatArray]:
        return {
            member.name: member.judge.embed(extract_crops(photo.pixels, faces.landmarks, member.judge.card.template))
            for member in self.judges
        }

    def _matches(self, photo: Photo, faces: Faces, paths: Sequence[Path | Photo]) -> NDArray[np.bool_]:
        """(N,) whether a face is somebody in one of the photos, by the first calibrated judge."""
        member = next((member for member in self.judges if SELECTION_FMR in member.thresholds), None)
        if member is None:
            raise NotCalibrated(
                "No calibrated judge is there to tell faces apart.",
                hint="Run `bauta recognizers calibrate`, or select faces with --largest or --box.",
            )
        crops = extract_crops(photo.pixels, faces.landmarks, member.judge.card.template)
        people = np.concatenate([self._selected(path)[member.name] for path in paths])
        similarity = member.judge.embed(crops) @ people.T
        return np.asarray(similarity.max(1) >= member.thresholds[SELECTION_FMR].cosine)

    def _work(self, progress: Progress) -> Work:
        """What the cloak is given."""
        return Work.seeded(
            self.settings.seed,
            Ensemble(self.surrogates) if "surrogates" in self.cloak.needs else None,
            thresholds=calibrated(self.roles.surrogates, self.settings.fmr),
            fitted=self.fitted,
            key=self.key,
            message=self.settings.message,
            references=tuple(view_of(read_photo(path), self.cloak.view) for path in self.settings.like),
            progress=steps_of(progress, "making the mask"),
        )

    def _judge(
        self,
        original: Photo,
        saved: Photo,
        faces: Faces,
        masks: Sequence[MaskFacts | None],
        spared: list[list[float]],
        unprotected: list[list[float]],
        progress: Progress,
    ) -> Report:
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            progress("judging the result", done, len(CONDITIONS))

        progress("judging the result", 0, len(CONDITIONS))
        answers = verify_faces(
            original.pixels,
            saved.pixels,
            faces,
            self.judges,
            self.references,
            fmr=self.settings.fmr,
            advance=advance,
        )
        return Report(
            source=FileFacts.of(original),
            output=FileFacts.of(saved),
            faces=tuple(
                FaceResult(
                    faces.boxes[index].tolist(),
                    faces.landmarks[index].tolist(),
                    float(faces.scores[index]),
                    *pair,
                )
                for index, pair in enumerate(zip(answers, masks, strict=True))
            ),
            spared=spared,
            unprotected=unprotected,
            roles=self.roles,
            references=tuple((reference.name, reference.sha256) for reference in self.references),
            settings=self.settings,
            config=self.config.to_dict(),
            made=any(mask is not None for mask in masks),
            environment=environment(),
            original=original.pixels,
            saved=saved.pixels,
            fitted=tuple(one.sha256 for one in self.fitted),
            limits=faces.limits,
        )


def _divided(photo: Photo, faces: Faces, left: Collection[int]) -> tuple[Faces, list[list[float]]]:
    """The faces that an edit can be made for, and the boxes of those that stay unprotected.

    Raises:
        NoFaceFound: when no face can be given an edit.
    """
    if len(left) == len(faces):
        raise NoFaceFound(
            f"Every face in {_name(photo)} is too small to be protected.",
            hint="Use a larger version of the photo.",
        )
    fit = np.ones(len(faces), dtype=np.bool_)
    fit[list(left)] = False
    return faces[fit], faces[~fit].boxes.tolist()


def _facts(change: Change) -> list[MaskFacts | None]:
    return [
        MaskFacts(int(edit.facts.get("iterations", 0)), str(edit.facts.get("stopped", "converged")), seconds)
        for edit, seconds in zip(change.edits, change.seconds, strict=True)
    ]


def _faces_of(path: Path | Photo) -> tuple[Photo, Faces]:
    photo = read_photo(path)
    faces = detect_faces(photo.pixels)
    if not len(faces):
        raise UsageError(
            f"No face was found in the reference photo {photo.path or 'in memory'}.",
            hint="Give a photo that shows the person large and from the front.",
        )
    return photo, faces


def view_of(photo: Photo, spec: ViewSpec) -> FaceView:
    """The view of the largest face in a photo.

    Raises:
        UsageError: when it shows no face that is large enough.
    """
    faces = detect_faces(photo.pixels)
    if not len(faces):
        raise UsageError(
            f"No face was found in {_name(photo)}.", hint="Give a photo that shows the person large and from the front."
        )
    return cut_view(photo.pixels, faces.largest().landmarks[0], grey=photo.grey, spec=spec)[0]


LEAST_SECRET = 16
"""Bytes of a key; less could be tried out."""


def read_secret(path: Path) -> bytes:
    """A key from its file.

    Raises:
        UsageError: when the file cannot be read, or holds too little.
    """
    try:
        secret = path.read_bytes()
    except OSError as error:
        raise UsageError(f"The key {path} cannot be read: {error.strerror}.", hint="Check the name.") from error
    if len(secret) < LEAST_SECRET:
        raise UsageError(
            f"The key {path} has {len(secret)} bytes; {LEAST_SECRET} is the least.", hint="Try `openssl rand 32`."
        )
    return secret


def _name(photo: Photo) -> str:
    return str(photo.path) if photo.path else "the photo"
