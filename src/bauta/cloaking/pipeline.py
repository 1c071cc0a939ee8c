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
from bauta.cloaking.choosing import Chosen, choose, with_others
from bauta.cloaking.given import faces_of, read_secret, view_of
from bauta.cloaking.making import Making
from bauta.cloaking.people import People
from bauta.cloaking.report import FaceResult, Report, environment
from bauta.cloaking.report_data import FileFacts, MaskFacts, printable
from bauta.cloaking.roles import choose_roles
from bauta.cloaking.settings import ProtectSettings
from bauta.cloaks.album import Album
from bauta.cloaks.base import Need, Work, load_cloak
from bauta.cloaks.view import FaceView
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
from bauta.photo.attachment import attach
from bauta.progress import Clock, Progress, silent, steps_of
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
        found: Faces | None = None,
        progress: Progress = silent,
    ) -> Report:
        """Protect one photo and judge the file that comes out.

        Args:
            photo: As read.
            destination: Where the protected photo is saved; None keeps it in memory.
            overwrite: Whether a file at the destination may be replaced.
            found: All its faces, when they were looked for before.
            progress: Called as work advances.

        Raises:
            NoFaceFound: when there is nothing to protect.
            OutputError: when the destination cannot be written.
        """
        clock = Clock()
        photo = photo.cleared()
        progress("looking for faces", 0, 1)
        chosen = self.select(photo, found)
        faces = chosen.faces
        clock.lap("detection")
        owners = self.people.owners(photo, faces, sure=True)
        making = Making(photo, faces, self._cloaks, lambda: self.work(progress), self.settings.budget, owners)
        content, saved = self._make(making, chosen, clock, progress)
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
            bare=faces[_numbers(set(range(chosen.masked)) | making.uncovered, treated)],
            spared=faces[_numbers(set(range(chosen.masked, len(faces))) - making.uncovered, treated)],
            made=True,
        )
        report = replace(report, payloads=tuple(payloads), removed=photo.removed(self.settings.metadata))
        return report.with_seconds(clock.total, content if destination is None else None)

    def sketch(self, photo: Photo, *, seconds: float = 1.5, found: Faces | None = None) -> Photo:
        """About what `protect` will make of a photo: first masks that are broken off early, and judged by none.

        Args:
            photo: As read.
            seconds: That the masks may take together.
            found: All its faces, when they were looked for before.

        Raises:
            NoFaceFound: when there is nothing to protect.
        """
        photo = photo.cleared()
        chosen = self.select(photo, found)
        owners = self.people.owners(photo, chosen.faces, sure=True)
        making = Making(photo, chosen.faces, self._cloaks[:1], lambda: self.work(silent), owners=owners)
        self._begin(making, chosen, seconds / max(1, chosen.masked))
        return making.product()

    def _begin(self, making: Making, chosen: Chosen, budget: float | None = None) -> None:
        """First masks, and the covers that are known from the start."""
        making.mask(range(chosen.masked), budget=budget)
        if self.settings.fallback != "none":
            making.cover(set(range(chosen.masked)) - making.masks.keys(), self.settings.fallback, "no-mask")
        for number, (how, cause) in chosen.covers.items():
            making.cover([number], how, cause)

    def _make(self, making: Making, chosen: Chosen, clock: Clock, progress: Progress) -> tuple[bytes, Photo]:
        """Mask, judge, strengthen and cover, until judges are satisfied or nothing is left to try.

        Returns:
            The file, and the photo as read from it; what judges say of every face in it is in `making`.

        Raises:
            NoFaceFound: when nothing can be done to any face.
        """
        settings = self.settings
        self._begin(making, chosen)
        changed = making.treated
        while True:
            product = making.product()
            if not making.treated:
                raise NoFaceFound(
                    f"Every face in {making.photo.called} is too small to be protected.",
                    hint="Use a larger version of the photo, or cover such faces with --fallback blur.",
                )
            clock.lap("mask")
            content = product.encode(metadata=settings.metadata)
            if sections := self.people.records(making, settings.metadata):
                content = attach(content, sections)
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
        if settings.erasable:
            from bauta.cloaking.erasing import erasable

            content, saved = erasable(content, making.photo, making.product(), settings.erasable)
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
        chosen = self.select(original)
        faces, others = chosen.faces[: chosen.masked], chosen.faces[chosen.masked :]
        pixels = protected.parts[:, :]
        refuse_another_photo(original.parts[:, :], pixels, faces)
        elsewhere = find_elsewhere(pixels, chosen.faces, original.parts.shape)
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
        chosen = self.select(original)
        faces = chosen.faces
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
        asked = chosen.asked
        report = self._report(
            original,
            protected,
            faces.limits,
            results,
            bare=faces[_numbers(asked, treated)],
            spared=faces[_numbers(set(range(len(faces))) - asked, treated)],
            made=True,
        )
        clock.lap("verification")
        return report.with_seconds(clock.total, None)

    def select(self, photo: Photo, found: Faces | None = None) -> Chosen:
        """What is asked for each face; those to be masked come largest first.

        Args:
            photo: As read.
            found: All its faces, when they were looked for before.

        Raises:
            NoFaceFound: when none is found, or none is selected and the others are to be left as they are.
            UsageError: when a face is named that is not there.
        """
        settings = self.settings
        if settings.selection.boxes:
            pixels = photo.parts[:, :]
            given = Faces.join([face_from_box(pixels, box) for box in settings.selection.boxes])
            others = given.elsewhere(detect_faces(pixels) if found is None else found)
            return with_others(given, others if settings.others != "leave" else replace(others, limits=()), settings)
        faces = detect_faces(photo.parts[:, :]) if found is None else found
        return choose(
            faces,
            settings,
            lambda faces, paths: self._matches(photo, faces, paths),
            lambda faces: self.people.owners(photo, faces) >= 0 if self.people.known else None,
            photo.called,
        )

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

    @cached_property
    def likenesses(self) -> tuple[FaceView, ...]:
        """The faces that the method goes by."""
        return tuple(view_of(read_photo(path), self.cloak.view) for path in self.settings.like)

    def prepare(self) -> None:
        """Look at every reference photo now, so that a bad one stops a run before it begins."""
        _ = self.references
        self.cloak.check(self.likenesses)
        for path in (*self.settings.selection.only, *self.settings.selection.keep):
            self._selected(path)

    def _selected(self, path: Path | Photo) -> dict[str, FloatArray]:
        """(K, D) embeddings by each judge of everybody in a photo that selects people."""
        seen: dict[Path | Photo, dict[str, FloatArray]] = self.__dict__.setdefault("_seen", {})
        if path not in seen:
            photo, faces = faces_of(path)
            seen[path] = self._embed(photo, faces)
        return seen[path]

    def _see(self, path: Path | Photo) -> Reference:
        photo, faces = faces_of(path)
        embeddings = {name: found[0] for name, found in self._embed(photo, faces.largest()).items()}
        return Reference(printable(photo.path.name if photo.path else "photo in memory"), photo.sha256, embeddings)

    def _embed(self, photo: Photo, faces: Faces) -> dict[str, FloatArray]:
        return {
            member.name: member.judge.embed(extract_crops(photo.parts, faces.landmarks, member.judge.card.template))
            for member in self.judges
        }

    def tell_apart(self, photo: Photo, faces: Faces) -> tuple[FloatArray, float]:
        """What tells the people of photos apart: two faces are one person's from a cosine on.

        Args:
            photo: As read.
            faces: Of that photo.

        Returns:
            (N, D) embeddings by the first calibrated judge, and its threshold.

        Raises:
            NotCalibrated: when there is no such judge.
        """
        member = self._telling
        crops = extract_crops(photo.parts, faces.landmarks, member.judge.card.template)
        return member.judge.embed(crops), member.thresholds[SELECTION_FMR].cosine

    @property
    def _telling(self) -> JudgeWithThresholds:
        member = next((member for member in self.judges if SELECTION_FMR in member.thresholds), None)
        if member is None:
            raise NotCalibrated(
                "No calibrated judge is there to tell faces apart.",
                hint="Run `bauta recognizers calibrate`, or select faces with --largest or --box.",
            )
        return member

    def _matches(self, photo: Photo, faces: Faces, paths: Sequence[Path | Photo]) -> NDArray[np.bool_]:
        """(N,) whether a face is somebody in one of the photos."""
        embeddings, limit = self.tell_apart(photo, faces)
        people = np.concatenate([self._selected(path)[self._telling.name] for path in paths])
        return np.asarray((embeddings @ people.T).max(1) >= limit)

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
            references=self.likenesses,
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
