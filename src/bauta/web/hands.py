"""What is done to one photo, in a process of its own: look for faces, sketch, protect, learn a person, restore, read.

`bauta.web.worker` calls `Hands.do` with plain values and gets plain values back; pictures go through the private
folder.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bauta.cloaking.settings import ProtectSettings, Selection
from bauta.errors import NotCalibrated, UsageError
from bauta.keys import DeploymentKey
from bauta.pages import as_image
from bauta.photo import MetadataPolicy, read_photo
from bauta.photo.attachment import attached
from bauta.web.memory import give_back_memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bauta.cloaking.pipeline import Pipeline
    from bauta.cloaking.report import Report
    from bauta.faces.faces import Faces
    from bauta.photo import Photo
    from bauta.photo.raster import Pixels

    FloatArray = NDArray[np.float32]

Tell = Callable[[str, Any], None]
"""Called with a word and plain values while work goes on."""

_SHOWN, _THUMBNAIL = 1600, 320  # long sides of what the page shows of a whole photo, in pixels
_LARGE = 4_000_000  # pixels, from which on a reduced photo is looked at first
_WINDOW = 720  # side of what it shows of a face, pixel by pixel
_AROUND = 1.7  # how much wider than the detector's box that is
_PICTURED = 40  # faces of one photo that are shown by themselves
_JPEG = {"format": "JPEG", "quality": 92, "subsampling": 0}
_LOADED = ("judges", "surrogates")  # what pipelines of the same recognisers share
SKETCH_SECONDS = 1.2


class Hands:
    """Does the work of one process; recognisers are loaded once.

    Args:
        pixels: Photos with more are refused before they are decoded.
        base: Settings that nobody is asked about, such as few iterations in tests.
    """

    def __init__(self, pixels: int, base: ProtectSettings | None = None) -> None:
        self.pixels = pixels
        self.base = base or ProtectSettings()
        self._pipelines: dict[ProtectSettings, Pipeline] = {}
        self._keys: dict[str, DeploymentKey] = {}

    def do(self, kind: str, about: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        """Do one job.

        Args:
            kind: ``methods``, ``warm``, ``look``, ``sketch``, ``protect``, ``fit``, ``restore`` or ``read``.
            about: What it needs, see the methods of these names.
            tell: Hears of what is done before the job is.

        Raises:
            BautaError: whatever is wrong with the photo or the settings.
        """
        jobs: dict[str, Callable[[Mapping[str, Any], Tell], dict[str, Any]]] = {
            "methods": self.methods,
            "warm": self.warm,
            "look": self.look,
            "sketch": self.sketch,
            "protect": self.protect,
            "fit": self.fit,
            "restore": self.restore,
            "read": self.read,
        }
        try:
            return jobs[kind](about, tell)
        finally:
            give_back_memory()

    def methods(self, about: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        """The cloaks that people choose from, what each must be given and what else it can do; and what is ready."""
        from bauta.cloaks.base import FitsPerson, Reads, Restores, load_cloak
        from bauta.registry import list_methods

        found = []
        for card in list_methods(kind="cloak"):
            if card.reference:
                continue
            made = load_cloak(card.name)
            found.append(
                {
                    "name": card.name,
                    "summary": card.summary,
                    "needs": sorted(made.needs - {"surrogates"}),
                    "fits": issubclass(made, FitsPerson),
                    "reads": issubclass(made, Reads),
                    "restores": issubclass(made, Restores),
                    "sealed": made.sealed,
                }
            )
        pipeline = self._kept(self.base)
        return {
            "methods": found,
            "default": self.base.method,
            "attacked": [card.name for card in pipeline.roles.surrogates],
            "judges": [card.name for card in pipeline.roles.judges],
        }

    def warm(self, about: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        """Load everything and take a first step, which is slow, so that the first photo need not wait for it."""
        import numpy as np

        from bauta.faces.crop_template import ARCFACE_112
        from bauta.faces.detection import detect_faces
        from bauta.faces.faces import Faces

        photo = read_photo(np.random.default_rng(0).integers(0, 255, (160, 160, 3), dtype=np.uint8))
        detect_faces(photo.parts[:, :])
        tell("progress", None)
        pipeline = self._pipeline(self.base)
        tell("progress", None)
        points = np.array(ARCFACE_112.points, dtype=np.float32) + 24
        found = Faces(np.array([[24, 24, 136, 136]], np.float32), points[None], np.ones(1, np.float32))
        if not pipeline.cloak.needs - {"surrogates"}:
            pipeline.sketch(photo, found=found, seconds=0.01)
        return {}

    def look(self, about: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        """Find the faces of a photo, and make the pictures of it that the page shows.

        ``folder`` is the photo's own, where it lies as ``file``. Tells of ``shown``, the size, as soon as there is a
        picture, and of a large photo once more with the boxes that a reduced one gives, which are quick and rough.
        """
        import numpy as np

        from bauta.cloaking.apply import refused
        from bauta.faces import centerface
        from bauta.faces.detection import detect_faces

        folder = Path(about["folder"])
        photo = self._photo(about)
        pixels = photo.parts
        reduced = pixels.reduced(_SHOWN)
        _write(reduced, folder / "shown.jpg", **_JPEG)
        _write(pixels.reduced(_THUMBNAIL), folder / "thumb.jpg", **_JPEG)
        size = {"width": photo.width, "height": photo.height, "format": photo.format, "suffix": photo.suffix}
        tell("shown", size)
        if photo.width * photo.height > _LARGE:
            factor = max(photo.width, photo.height) / _SHOWN
            tell("shown", {**size, "rough": (detect_faces(reduced, thorough=False).boxes * factor).tolist()})
        found = detect_faces(pixels[:, :])
        centerface.give_back_memory()
        found = found[np.argsort(-found.areas, kind="stable")]
        np.savez(folder / "faces.npz", boxes=found.boxes, landmarks=found.landmarks, scores=found.scores)
        (folder / "limits.json").write_text(json.dumps(found.limits), encoding="utf-8")
        _save_faces(pixels, found.boxes.tolist(), folder, "before")
        pipeline, people, limit = self._pipeline(self.base), [], None
        if len(found):
            with contextlib.suppress(NotCalibrated):  # then the page cannot offer to find a person again
                embeddings, limit = pipeline.tell_apart(photo, found)
                people = np.round(embeddings.astype(float), 5).tolist()
        small = refused(pipeline.cloak, photo, found)
        faces = [
            {"number": number, "box": box, "small": number - 1 in small}
            for number, box in enumerate(found.boxes.tolist(), 1)
        ]
        return {**size, "faces": faces, "people": people, "limit": limit, "limited": list(found.limits)}

    def sketch(self, about: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        """A quick look at what the masks will be; nobody judges it."""
        folder, (photo, found) = Path(about["folder"]), self._found(about)
        made = self._pipeline(self._settings(about)).sketch(photo, seconds=SKETCH_SECONDS, found=found)
        self._picture(made.parts, found, folder, "sketch")
        return {}

    def protect(self, about: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        """Protect a photo and judge the file; ``file`` of the answer is its name in the folder."""
        folder, (photo, found) = Path(about["folder"]), self._found(about)
        suffix = photo.suffix
        pipeline, stages = self._pipeline(self._settings(about)), [""]

        def progress(stage: str, done: int, total: int) -> None:
            if stage != stages[-1]:
                stages.append(stage)
                give_back_memory()
            tell("progress", {"stage": stage, "done": done, "total": total})

        report = pipeline.protect(photo, found=found, progress=progress)
        assert report.content is not None
        del photo
        give_back_memory()
        name = f"result{suffix.lower()}"
        (folder / name).write_bytes(report.content)
        self._picture(report.after, found, folder, "after")
        (folder / "report.html").write_text(report.to_html(), encoding="utf-8")
        answer = result_of(report, found.boxes.tolist())
        apart = any(report.payloads) and not attached(report.content)
        if apart:  # the file itself does not say how to take its masks off
            kept = {
                "schema": "bauta.restore/1",
                "method": report.settings.method,
                "landmarks": [face.landmarks for face in report.faces],
                "payloads": [base64.b64encode(one).decode() for one in report.payloads],
            }
            (folder / "restore.json").write_text(json.dumps(kept), encoding="utf-8")
        return {**answer, "file": name, "suffix": suffix, "restorable": apart}

    def fit(self, about: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        """Let a method learn a person from the photos ``files``; what it learned is written to ``to``."""
        from bauta.cloaking.fitting import fit

        fitted = fit(
            about["method"],
            [read_photo(Path(path), max_pixels=self.pixels) for path in about["files"]],
            strength=about["strength"],
            progress=lambda stage, done, total: tell("progress", {"stage": stage, "done": done, "total": total}),
        )
        fitted.save(Path(about["to"]), key=self._opens(about), overwrite=True)
        return {"method": fitted.method, "photos": len(about["files"]), "attacked": list(fitted.teachers)}

    def restore(self, about: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        """Take a mask off the photo ``file``; the answer's ``file`` is the restored one's name in ``folder``."""
        from bauta.cloaking.verbs import restore

        landmarks, payloads = _kept(about.get("kept"))
        photo = restore(
            self._photo(about),
            method=about.get("method"),
            fitted=list(about.get("fitted", ())),
            key=about.get("key"),
            landmarks=landmarks,
            payloads=payloads,
            opens=self._opens(about) if about.get("method") else self._owner(about),
        )
        name = f"restored{photo.suffix.lower()}"
        photo.save(Path(about["folder"]) / name, overwrite=True)
        return {"file": name}

    def read(self, about: Mapping[str, Any], tell: Tell) -> dict[str, Any]:
        """What the faces of the photo ``file`` say."""
        from bauta.cloaking.verbs import read

        found = read(
            self._photo(about),
            method=about.get("method"),
            fitted=list(about.get("fitted", ())),
            key=about.get("key"),
            landmarks=_kept(about.get("kept"))[0],
            opens=self._opens(about),
        )
        return {"readings": [{"message": one.message, "chance": one.chance} for one in found]}

    def _photo(self, about: Mapping[str, Any]) -> Photo:
        photo = read_photo(Path(about["file"]).read_bytes(), max_pixels=self.pixels)
        # A file's own name has the ending, so that a .jpeg stays one; it is never opened by that name.
        return replace(photo, path=Path(about["name"])).cleared() if about.get("name") else photo.cleared()

    def _found(self, about: Mapping[str, Any]) -> tuple[Photo, Faces]:
        import numpy as np

        from bauta.faces.faces import Faces

        folder = Path(about["folder"])
        with np.load(folder / "faces.npz", allow_pickle=False) as kept:
            found = Faces(kept["boxes"], kept["landmarks"], kept["scores"])
        return self._photo(about), found.limited(*json.loads((folder / "limits.json").read_text(encoding="utf-8")))

    def _settings(self, about: Mapping[str, Any]) -> ProtectSettings:
        given = {key: about[key] for key in ("method", "strength", "fallback", "message") if about.get(key)}
        return replace(
            self.base,
            **given,
            metadata=MetadataPolicy(about.get("metadata", "private")),
            fitted=tuple(map(Path, about.get("fitted", ()))),
            opens=self._opens(about),
            erasable=self._owner(about) if about.get("erasable") else None,
            key=Path(about["key"]) if about.get("key") else None,
            like=tuple(map(Path, about.get("like", ()))),
            selection=Selection(faces=tuple((int(number), what) for number, what in about["choices"].items())),
        )

    def _opens(self, about: Mapping[str, Any]) -> DeploymentKey | None:
        """What fitted files are sealed under; the same object for the same passphrase."""
        text = about.get("passphrase")
        if not text:
            return None
        if text not in self._keys:
            self._keys[text] = DeploymentKey.from_passphrase(text)
        return self._keys[text]

    def _owner(self, about: Mapping[str, Any]) -> DeploymentKey:
        """What erasable photos are sealed under."""
        place = about.get("owner")
        if not place:
            raise UsageError(
                "There is no key yet under which the way back could be sealed.", hint="Make one, or choose its file."
            )
        if place not in self._keys:
            self._keys[place] = DeploymentKey.read(place)
        return self._keys[place]

    def _pipeline(self, settings: ProtectSettings) -> Pipeline:
        """A pipeline with its networks; only the choice of faces differs from photo to photo."""
        kept = self._kept(settings)
        for name in _LOADED if "surrogates" in kept.cloak.needs else _LOADED[:1]:
            getattr(kept, name)  # here, and not in a copy that is thrown away
        pipeline = copy.copy(kept)
        pipeline.settings = settings
        return pipeline

    def _kept(self, settings: ProtectSettings) -> Pipeline:
        """The pipeline of which those for single photos are copies; whatever it has loaded stays."""
        from bauta.cloaking.pipeline import Pipeline

        whole = replace(settings, selection=Selection())
        if whole not in self._pipelines:
            made = Pipeline(whole)
            for other in self._pipelines.values():
                if other.roles == made.roles:  # the same recognisers, at another strength
                    made.__dict__.update((name, other.__dict__[name]) for name in _LOADED if name in other.__dict__)
            while len(self._pipelines) > 3:
                del self._pipelines[next(iter(self._pipelines))]
            self._pipelines[whole] = made
        return self._pipelines[whole]

    @staticmethod
    def _picture(pixels: Pixels, found: Faces, folder: Path, name: str) -> None:
        _write(pixels.reduced(_SHOWN), folder / f"{name}.jpg", **_JPEG)
        _save_faces(pixels, found.boxes.tolist(), folder, name)


def result_of(report: Report, boxes: Sequence[Sequence[float]]) -> dict[str, Any]:
    """What a page tells of a protected photo, as plain values.

    Args:
        report: Of the photo.
        boxes: Of its faces, in the page's order: findings name faces by their place in it, from 1.
    """
    from bauta.cloaking.outcomes import WEAK, verdict_code
    from bauta.judging.words import how_visible, most_visible

    numbers = {outcome.number: _nearest(outcome.box, boxes) for outcome in report.per_face}
    findings = [
        {
            **{key: value for key, value in asdict(finding).items() if value is not None},
            "forces": finding.forces,
            **({"face": numbers[finding.face]} if finding.face in numbers else {}),
        }
        for finding in report.findings
    ]
    masks = [face.mask for face in report.faces]
    seen = {at: mask.visibility for at, mask in enumerate(masks, 1) if mask and mask.visibility}
    return {
        "verdict": report.verdict,
        "held": verdict_code(report.verdict) == WEAK,
        "margin": report.margin,
        "seconds": report.seconds.get("total", 0.0),
        "seen": most_visible([mask.visibility for mask in masks if mask]),
        "removed": report.removed,
        "judges": [card.name for card in report.judges],
        "independent": len([card for card in report.judges if card.name not in report.roles.attacked]),
        "faces": [
            {
                "number": numbers[outcome.number],
                "treatment": outcome.treatment,
                "verdict": outcome.verdict,
                "margin": outcome.margin,
                "seen": how_visible(seen[outcome.number]) if outcome.number in seen else None,
                "displacement": seen[outcome.number].displacement if outcome.number in seen else None,
            }
            for outcome in report.per_face
        ],
        "findings": findings,
        "conditions": [
            {"name": condition.name, "matched": condition.matched_by} for condition in report.record.conditions
        ],
        "smallest": report.record.smallest_face,
    }


def _nearest(box: Sequence[float], boxes: Sequence[Sequence[float]]) -> int:
    apart = [sum(abs(a - b) for a, b in zip(box, other, strict=True)) for other in boxes]
    return apart.index(min(apart)) + 1


def _kept(path: str | None) -> tuple[list[Any] | None, list[bytes]]:
    """Landmarks and payloads from a restore file."""
    if path is None:
        return None, []
    try:
        kept = json.loads(Path(path).read_text(encoding="utf-8"))
        return list(kept["landmarks"]), [base64.b64decode(one, validate=True) for one in kept["payloads"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "That is not a restore file of Bauta's.", hint="Give the .restore.json that came with the photo."
        ) from error


def _save_faces(pixels: Pixels, boxes: Sequence[Sequence[float]], folder: Path, name: str) -> None:
    """Windows around faces, pixel by pixel."""
    height, width = pixels.shape[:2]
    for number, (left, top, right, bottom) in enumerate(boxes[:_PICTURED], 1):
        half = min(max(right - left, bottom - top) * _AROUND, _WINDOW) / 2
        across, down = (left + right) / 2, (top + bottom) / 2
        rows = slice(max(0, round(down - half)), min(height, round(down + half)))
        columns = slice(max(0, round(across - half)), min(width, round(across + half)))
        _write(pixels[rows, columns], folder / f"{name}-{number}.png", format="PNG", compress_level=1)


def _write(pixels: FloatArray, path: Path, **options: Any) -> None:
    """A picture without metadata, whole or not at all: a browser may ask for it while it is made anew."""
    buffer = io.BytesIO()
    as_image(pixels).save(buffer, **options)
    draft = path.with_suffix(".part")
    draft.write_bytes(buffer.getvalue())
    os.replace(draft, path)  # noqa: PTH105
