"""From a photo to a protected photo and an honest answer: detect, select, perturb, save, read back, judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bauta.cloaking.report import FaceResult, FileFacts, MaskFacts, Report, environment, printable
from bauta.cloaking.roles import choose_cast
from bauta.cloaking.settings import ProtectSettings
from bauta.cloaks.view import FaceView, Placement, cut_view
from bauta.errors import NoFaceFound, NotCalibrated, UsageError
from bauta.faces.alignment import extract_crops
from bauta.faces.detection import detect_faces, face_from_box
from bauta.faces.faces import Faces
from bauta.judging.conditions import CONDITIONS
from bauta.judging.verification import ORIGINAL, PanelMember, Reference, refuse_another_photo, verify_faces
from bauta.photo import Photo, read_photo
from bauta.rates import SELECTION_FMR
from bauta.recognizers.calibration import calibrated
from bauta.recognizers.judges import load_judge
from bauta.recognizers.surrogates import Surrogate, load_surrogate
from bauta.registry import load_method

FloatArray = NDArray[np.float32]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the steps done, and the steps there are."""

BATCH = 8
"""Faces optimised together: enough to be fast, few enough for photos with hundreds of them."""

QUALITY_OF_STRENGTH: dict[str, dict[str, float]] = {
    "low": {"psnr": 35.5, "ssim": 0.973},
    "medium": {},
    "high": {"psnr": 31.0, "ssim": 0.93},
}
"""Floors of PSNR (dB) and SSIM on the face that a strength stands for; medium is the method's own default, which
is what benchmarks measure."""


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
        self.cast = choose_cast(settings)
        self._method = load_method(settings.method, kind="cloak")
        self.config = configure(settings)

    def protect(
        self,
        photo: Photo,
        destination: Path | None = None,
        *,
        overwrite: bool = False,
        progress: Progress = lambda stage, done, total: None,
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
        progress("looking for faces", 0, 1)
        faces, spared = self.select(photo)
        detected = time.monotonic()
        faces, cuts, unprotected = _cut_views(photo, faces)
        delta, masks = self._perturb(photo, cuts, progress)
        masked = time.monotonic()
        protected = photo.with_perturbation(delta)
        if destination is None:
            content = protected.encode(metadata=self.settings.metadata)
            saved = read_photo(content)
        else:
            protected.save(destination, metadata=self.settings.metadata, overwrite=overwrite)
            saved = read_photo(destination)
            content = None
        report = self._judge(photo, saved, faces, masks, spared, unprotected, progress)
        seconds = {
            "detection": detected - began,
            "mask": masked - detected,
            "verification": time.monotonic() - masked,
            "total": time.monotonic() - began,
        }
        return report.with_seconds(seconds, content)

    def verify(
        self, original: Photo, protected: Photo, *, progress: Progress = lambda stage, done, total: None
    ) -> Report:
        """Judge a photo that was protected before, here or elsewhere.

        Raises:
            NoFaceFound: when the original shows no face.
            UsageError: when the two are not the same photo.
        """
        began = time.monotonic()
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
        faces, _, unprotected = _cut_views(original, faces)
        report = self._judge(original, protected, faces, [None] * len(faces), spared, unprotected, progress)
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
        return [load_surrogate(card) for card in self.cast.surrogates]

    @cached_property
    def panel(self) -> list[PanelMember]:
        """The judges."""
        return [
            PanelMember(load_judge(card), card.name in self.cast.attacked, self.cast.thresholds[card.name])
            for card in self.cast.judges
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

    def _selected(self, path: Path) -> dict[str, FloatArray]:
        """(K, D) embeddings by each judge of everybody in a photo that selects people."""
        seen: dict[Path, dict[str, FloatArray]] = self.__dict__.setdefault("_seen", {})
        if path not in seen:
            photo, faces = _faces_of(path)
            seen[path] = self._embed(photo, faces)
        return seen[path]

    def _see(self, path: Path) -> Reference:
        photo, faces = _faces_of(path)
        embeddings = {name: found[0] for name, found in self._embed(photo, faces.largest()).items()}
        return Reference(printable(path.name), photo.sha256, embeddings)

    def _embed(self, photo: Photo, faces: Faces) -> dict[str, FloatArray]:
        return {
            member.name: member.judge.embed(extract_crops(photo.pixels, faces.landmarks, member.judge.card.template))
            for member in self.panel
        }

    def _matches(self, photo: Photo, faces: Faces, paths: Sequence[Path]) -> NDArray[np.bool_]:
        """(N,) whether a face is somebody in one of the photos, by the first calibrated judge."""
        member = next((member for member in self.panel if SELECTION_FMR in member.thresholds), None)
        if member is None:
            raise NotCalibrated(
                "No calibrated judge is there to tell faces apart.",
                hint="Run `bauta recognizers calibrate`, or select faces with --largest or --box.",
            )
        crops = extract_crops(photo.pixels, faces.landmarks, member.judge.card.template)
        people = np.concatenate([self._selected(path)[member.name] for path in paths])
        similarity = member.judge.embed(crops) @ people.T
        return np.asarray(similarity.max(1) >= member.thresholds[SELECTION_FMR].cosine)

    def _perturb(
        self, photo: Photo, cuts: Sequence[tuple[FaceView, Placement]], progress: Progress
    ) -> tuple[FloatArray, list[MaskFacts | None]]:
        """The perturbation of the whole photo, and what each mask took."""
        cloak = self._method(self.config, thresholds=calibrated(self.cast.surrogates, self.settings.fmr))
        generator = torch.Generator().manual_seed(self.settings.seed)
        delta = np.zeros_like(photo.pixels)
        facts: list[MaskFacts | None] = []
        for start in range(0, len(cuts), BATCH):
            batch = cuts[start : start + BATCH]
            views = [view for view, _ in batch]
            cloak.fit(views)
            budget = self.settings.budget
            done_before = start // BATCH
            batches = -(-len(cuts) // BATCH)
            masks = cloak.perturb(
                views,
                self.surrogates,
                generator,
                deadline=None if budget is None else time.monotonic() + budget * len(views),
                progress=lambda done, total, before=done_before, all_=batches: progress(
                    "making the mask", before * total + done, all_ * total
                ),
            )
            for mask, (_, placement) in zip(masks, batch, strict=True):
                patch, there = placement.patch(mask.delta), delta[placement.rows, placement.columns]
                # Where masks overlap the stronger one holds: their sum would break the bound of both.
                np.copyto(there, patch, where=np.abs(patch) > np.abs(there))
                facts.append(MaskFacts(mask.iterations, mask.stopped, mask.seconds))
        return delta.clip(-1, 1), facts

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
            self.panel,
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
            cast=self.cast,
            references=tuple((reference.name, reference.sha256) for reference in self.references),
            settings=self.settings,
            config=self.config.to_dict(),
            made=any(mask is not None for mask in masks),
            environment=environment(),
            original=original.pixels,
            saved=saved.pixels,
        )


def configure(settings: ProtectSettings) -> Any:
    """The method's own frozen configuration, from a strength and options by name.

    ``preset`` chooses among the named settings of the method; the published ones ignore the strength.

    Raises:
        UsageError: when the method knows no such setting or preset, or refuses a value.
    """
    config_type = load_method(settings.method, kind="cloak").Config
    options = dict(settings.options)
    preset = options.pop("preset", "default")
    make = config_type if preset == "default" else getattr(config_type, preset.replace("-", "_"), None)
    if not callable(make):
        raise UsageError(f"{settings.method} has no preset {preset!r}.", hint="Leave out --preset.")
    known = {field.name for field in fields(config_type)}
    unknown = sorted(options.keys() - known)
    if unknown:
        raise UsageError(
            f"{settings.method} has no setting {', '.join(unknown)}.",
            hint=f"It has: {', '.join(sorted(known))}.",
        )
    if preset == "default" and "psnr" in known:
        if "psnr" in options:  # whoever names one floor means that one
            options.setdefault("ssim", None)
        options = QUALITY_OF_STRENGTH[settings.strength] | options
    return make(**options)


def _cut_views(photo: Photo, faces: Faces) -> tuple[Faces, list[tuple[FaceView, Placement]], list[list[float]]]:
    """The faces that a mask can be made for, their views, and the boxes of those that stay unprotected.

    Raises:
        NoFaceFound: when no face can be given a mask.
    """
    cuts: list[tuple[FaceView, Placement]] = []
    fit = np.zeros(len(faces), dtype=np.bool_)
    for index in range(len(faces)):
        try:
            cuts.append(cut_view(photo.pixels, faces.landmarks[index], grey=photo.grey))
        except UsageError:  # too small, cut off, or without an orientation
            continue
        fit[index] = True
    if not cuts:
        raise NoFaceFound(
            f"Every face in {_name(photo)} is too small to be protected.",
            hint="Use a larger version of the photo.",
        )
    return faces[fit], cuts, faces[~fit].boxes.tolist()


def _faces_of(path: Path) -> tuple[Photo, Faces]:
    photo = read_photo(path)
    faces = detect_faces(photo.pixels)
    if not len(faces):
        raise UsageError(
            f"No face was found in the reference photo {path}.",
            hint="Give a photo that shows the person large and from the front.",
        )
    return photo, faces


def _name(photo: Photo) -> str:
    return str(photo.path) if photo.path else "the photo"
