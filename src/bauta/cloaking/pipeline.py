"""From a photo to a protected photo and an honest answer: detect, select, perturb, save, read back, judge."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.cloaking.apply import require
from bauta.cloaking.making import Making
from bauta.cloaking.people import People
from bauta.cloaking.report import FaceResult, Report, environment
from bauta.cloaking.report_data import FileFacts, MaskFacts, printable
from bauta.cloaking.roles import choose_roles
from bauta.cloaking.settings import ProtectSettings
from bauta.cloaks.album import Album
from bauta.cloaks.base import Need, Work, load_cloak
from bauta.cloaks.view import FaceView, ViewSpec, cut_view
from bauta.errors import NoFaceFound, NotCalibrated, UsageError
from bauta.faces.alignment import extract_crops
from bauta.faces.detection import detect_faces, face_from_box
from bauta.faces.faces import Faces, SearchLimit
from bauta.judging.conditions import CONDITIONS
from bauta.judging.elsewhere import find_elsewhere, search_embedded
from bauta.judging.findings import ORIGINAL
from bauta.judging.verification import (
    FaceVerification,
    JudgeWithThresholds,
    Reference,
    refuse_another_photo,
    verify_faces,
)
from bauta.learning.fitted import Fitted
from bauta.photo import Photo, read_photo
from bauta.progress import Clock, Progress, silent, steps_of
from bauta.rates import SELECTION_FMR
from bauta.recognizers.calibration import calibrated
from bauta.recognizers.ensemble import Ensemble
from bauta.recognizers.judges import load_judge
from bauta.recognizers.surrogates import Surrogate, load_surrogate
from bauta.registry import DEFAULT_CLOAK

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
            Fitted.load(path, method=settings.method, version=method.version, key=settings.opens)
            for path in settings.fitted
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
        self.people = People(self.fitted, lambda: self.judges)
        self.config = method.configured(dict(settings.options), strength=settings.strength)
        self.cloak = method(self.config)
        self.album = Album() if settings.unlinkable else None
        self._cloaks = [self.cloak, *map(method, method.escalations(self.config))]

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
        clock = Clock()
        photo = photo.cleared()
        progress("looking for faces", 0, 1)
        chosen, others = self.select(photo)
        faces = Faces.join([chosen, others])
        clock.lap("detection")
        owners = self.people.owners(photo, faces, sure=True)
        making = Making(photo, faces, self._cloaks, lambda: self.work(progress), self.settings.budget, owners)
        content, saved = self._make(making, len(chosen), clock, progress)
        payloads = [making.masks[number].edit.payload if number in making.masks else b"" for number in making.treated]
        if destination is not None:
            if any(payloads) and not self.people.secrets:
                raise UsageError(
                    f"To take what {self.settings.method} does off again, something must be kept that a folder has no "
                    "place for.",
                    hint="Protect the photo from Python: `bauta.protect` hands it over.",
                )
            photo.store(content, destination, overwrite=overwrite)
            saved = replace(saved, path=destination)
        treated = making.treated
        report = self._report(
            photo,
            saved,
            faces.limits,
            [self._result(making, number) for number in treated],
            bare=faces[_numbers(set(range(len(chosen))) | making.uncovered, treated)],
            spared=faces[_numbers(set(range(len(chosen), len(faces))) - making.uncovered, treated)],
            made=True,
        )
        report = replace(report, payloads=tuple(payloads), removed=photo.removed(self.settings.metadata))
        return report.with_seconds(clock.total, content if destination is None else None)

    def _make(self, making: Making, chosen: int, clock: Clock, progress: Progress) -> tuple[bytes, Photo]:
        """Mask, judge, strengthen and cover, until judges are satisfied or nothing is left to try.

        Returns:
            The file, and the photo as read from it; what judges say of every face in it is in `making`.

        Raises:
            NoFaceFound: when nothing can be done to any face.
        """
        settings, whole = self.settings, range(len(making.faces))
        making.mask(whole[:chosen])
        if settings.fallback != "none":
            making.cover(set(whole[:chosen]) - making.masks.keys(), settings.fallback, "no-mask")
        if settings.others != "leave":
            making.cover(whole[chosen:], settings.others, "not-chosen")
        changed = making.treated
        while True:
            product = making.product()
            if not making.treated:
                raise NoFaceFound(
                    f"Every face in {_name(making.photo)} is too small to be protected.",
                    hint="Use a larger version of the photo, or cover such faces with --fallback blur.",
                )
            clock.lap("mask")
            content = self.people.with_records(product.encode(metadata=settings.metadata), making, settings.metadata)
            del product  # before the file is read back: of a hundred megapixels it is hundreds of megabytes
            saved = read_photo(content)
            changed = [number for number in changed if number in making.treated]
            making.judged(self._answers(making.photo, saved, making.faces, changed, progress))
            clock.lap("verification")
            again = making.stronger()
            if not again and settings.fallback != "none":
                again = making.failing()
                making.cover(again, settings.fallback, "mask-failed")
            again = again or making.thicker() or making.settle()
            if not again:
                break
            changed = again
        # Faces that were judged in an earlier version of the file may have changed with their neighbours.
        rest = [number for number in making.treated if number not in changed]
        making.judged(self._answers(making.photo, saved, making.faces, rest, progress))
        clock.lap("verification")
        return content, saved

    def _result(self, making: Making, number: int) -> FaceResult:
        cover = making.covers.get(number)
        return FaceResult.of(
            making.faces,
            number,
            making.answers[number],
            making.facts(number),
            treatment=cover[0] if cover else "mask",
            cause=cover[1] if cover else None,
        )

    def verify(self, original: Photo, protected: Photo, *, progress: Progress = silent) -> Report:
        """Judge a photo that was protected before, here or elsewhere, and whatever else its file shows.

        Raises:
            NoFaceFound: when the original shows no face.
            UsageError: when the two are not the same photo.
        """
        clock = Clock()
        original = original.cleared()
        (height, width), (other_height, other_width) = original.parts.shape[:2], protected.parts.shape[:2]
        if abs(other_width / width * height / other_height - 1) > 0.02:
            raise UsageError(
                f"The protected photo has another shape ({other_width}x{other_height}) "
                f"than the original ({width}x{height}).",
                hint="Give the original of the same photo, not cropped.",
            )
        progress("looking for faces", 0, 1)
        faces, others = self.select(original)
        pixels = protected.parts[:, :]
        refuse_another_photo(original.parts[:, :], pixels, faces)
        elsewhere = find_elsewhere(pixels, Faces.join([faces, others]), original.parts.shape)
        del pixels  # of two hundred megapixels they are gigabytes
        clock.lap("detection")
        answers = self._answers(original, protected, faces, range(len(faces)), progress)
        embedded = search_embedded(protected.content, original.parts, faces, self.judges, fmr=self.settings.fmr)
        results = [FaceResult.of(faces, number, answer) for number, answer in answers.items()]
        report = self._report(original, protected, faces.limits, results, bare=Faces.none(), spared=others, made=False)
        clock.lap("verification")
        return replace(report, further=(*embedded, *elsewhere)).with_seconds(clock.total, None)

    def judge_again(
        self,
        original: Photo,
        protected: Photo,
        made: Sequence[Mapping[str, Any]],
        *,
        progress: Progress = silent,
    ) -> Report | None:
        """Judge a photo that an earlier run protected with the same settings; None when its faces are others now.

        Args:
            original: The photo before protection.
            protected: The photo that was saved.
            made: As the earlier run recorded them: of each face that was masked or covered its ``box``, ``treatment``
                and ``cause``, and what its ``mask`` took.
            progress: Called as work advances.
        """
        clock = Clock()
        original = original.cleared()
        progress("looking for faces", 0, 1)
        chosen, others = self.select(original)
        faces = Faces.join([chosen, others])
        clock.lap("detection")
        treated = []
        for record in made:
            here = np.flatnonzero(np.isclose(faces.boxes, record["box"], atol=1).all(axis=1))
            if len(here) != 1:
                return None
            treated.append(int(here[0]))
        answers = self._answers(original, protected, faces, treated, progress)
        results = [
            FaceResult.of(
                faces,
                number,
                answers[number],
                MaskFacts.of(record["mask"]) if record["mask"] else None,
                record["treatment"],
                record["cause"],
            )
            for number, record in zip(treated, made, strict=True)
        ]
        asked = range(len(chosen) if self.settings.others == "leave" else len(faces))
        report = self._report(
            original,
            protected,
            faces.limits,
            results,
            bare=faces[_numbers(asked, treated)],
            spared=faces[_numbers(range(len(asked), len(faces)), treated)],
            made=True,
        )
        clock.lap("verification")
        return report.with_seconds(clock.total, None)

    def select(self, photo: Photo) -> tuple[Faces, Faces]:
        """The faces to protect, largest first, and the others.

        Raises:
            NoFaceFound: when none is found, or none is selected and the others are to be left as they are.
        """
        selection = self.settings.selection
        if selection.boxes:
            pixels = photo.parts[:, :]
            given = Faces.join([face_from_box(pixels, box) for box in selection.boxes])
            found = detect_faces(pixels)
            others = given.elsewhere(found)
            return given, others if self.settings.others != "leave" else replace(others, limits=())
        faces = detect_faces(photo.parts[:, :])
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
        if self.people.known:
            here = self.people.owners(photo, faces) >= 0
            if chosen.any() and not (chosen & here).any() and self.settings.others == "leave":
                raise NoFaceFound(
                    f"No face in {_name(photo)} is of the person that the mask was fitted to.",
                    hint=f"Fit a mask for whoever it shows, or protect it with --method {DEFAULT_CLOAK}.",
                )
            chosen = chosen & here
        if not chosen.any() and self.settings.others == "leave":
            raise NoFaceFound(
                f"None of the {len(faces)} faces in {_name(photo)} is selected.",
                hint="Check the reference photos, or leave out --only and --keep to protect every face.",
            )
        return faces[chosen], faces[~chosen]

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
            member.name: member.judge.embed(extract_crops(photo.parts, faces.landmarks, member.judge.card.template))
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
        crops = extract_crops(photo.parts, faces.landmarks, member.judge.card.template)
        people = np.concatenate([self._selected(path)[member.name] for path in paths])
        similarity = member.judge.embed(crops) @ people.T
        return np.asarray(similarity.max(1) >= member.thresholds[SELECTION_FMR].cosine)

    def work(self, progress: Progress) -> Work:
        """What the cloak is given."""
        return Work.seeded(
            self.settings.seed,
            Ensemble(self.surrogates) if "surrogates" in self.cloak.needs else None,
            thresholds=calibrated(self.roles.surrogates, self.settings.fmr),
            fitted=self.fitted,
            key=self.key,
            message=self.settings.message,
            album=self.album,
            references=tuple(view_of(read_photo(path), self.cloak.view) for path in self.settings.like),
            progress=steps_of(progress, "making the mask"),
        )

    def _answers(
        self, original: Photo, saved: Photo, faces: Faces, numbers: Sequence[int], progress: Progress
    ) -> dict[int, FaceVerification]:
        """What judges say of some of the faces."""
        if not len(numbers):
            return {}
        steps = steps_of(progress, "judging the result")
        steps(0, len(CONDITIONS))
        answers = verify_faces(
            original.parts,
            saved.parts,
            faces[np.array(numbers, dtype=np.int64)],
            self.judges,
            self.references,
            fmr=self.settings.fmr,
            progress=steps,
        )
        return dict(zip(numbers, answers, strict=True))

    def _report(
        self,
        original: Photo,
        saved: Photo,
        limits: tuple[SearchLimit, ...],
        results: Sequence[FaceResult],
        *,
        bare: Faces,
        spared: Faces,
        made: bool,
    ) -> Report:
        return Report(
            source=FileFacts.of(original),
            output=FileFacts.of(saved),
            faces=tuple(result.numbered(number) for number, result in enumerate(results, 1)),
            spared=spared.boxes.tolist(),
            unprotected=bare.boxes.tolist(),
            roles=self.roles,
            references=tuple((reference.name, reference.sha256) for reference in self.references),
            settings=self.settings,
            config=self.config.to_dict(),
            made=made,
            environment=environment(),
            before=original.parts,
            after=saved.parts,
            fitted=tuple(one.sha256 for one in self.fitted),
            limits=limits,
        )


def _numbers(asked: Iterable[int], treated: Collection[int]) -> NDArray[np.int64]:
    """Which of the faces asked for were not treated."""
    return np.array(sorted(set(asked) - set(treated)), dtype=np.int64)


def _faces_of(path: Path | Photo) -> tuple[Photo, Faces]:
    photo = read_photo(path)
    faces = detect_faces(photo.parts[:, :])
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
    faces = detect_faces(photo.parts[:, :])
    if not len(faces):
        raise UsageError(
            f"No face was found in {_name(photo)}.", hint="Give a photo that shows the person large and from the front."
        )
    return cut_view(photo.parts, faces.largest().landmarks[0], grey=photo.grey, spec=spec)[0]


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
