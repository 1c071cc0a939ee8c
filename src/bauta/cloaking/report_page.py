"""The report as a page to read: `report.html`, made from the record and the two photos.

The page holds everything it shows: no script, font or picture is fetched, and its content security policy forbids it.
"""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from bauta.cloaking.report_data import FaceRecord, RecognizerRecord, ReportRecord
from bauta.judging import words
from bauta.judging.conditions import SAVED
from bauta.judging.findings import ORIGINAL
from bauta.judging.verification import Comparison, cut, footprint
from bauta.pages import exact_picture, page_template, picture
from bauta.photo import Pixels

FloatArray = NDArray[np.float32]

_PREVIEW = 1100  # long side of the pictures of the whole photo, in pixels
_PICTURED_FACES = 24  # a group of hundreds would make a page of hundreds of megabytes
_FEW_FACES = 4  # up to which every face is shown large
_WINDOW, _SMALL_WINDOW = 640, 320  # side of what is shown of a face, in pixels of the photo


@dataclass(frozen=True)
class Picture:
    """One face as it is in one of the photos, pixel by pixel.

    Attributes:
        label: What it shows.
        source: A data URI.
        width: In pixels of the photo.
        height: In pixels of the photo.
    """

    label: str
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class JudgeRow:
    """What one judge says of one face against one photo.

    Attributes:
        card: The judge.
        limits: Its thresholds by FMR.
        rows: Its comparisons by condition.
    """

    card: RecognizerRecord
    limits: dict[float, float]
    rows: dict[str, Comparison]


@dataclass(frozen=True)
class FaceView:
    """What the page shows of one face.

    Attributes:
        record: The face.
        pictures: Original and protected; empty of faces that are only listed.
        whole: Whether the pictures show the whole face and not only its middle.
        difference: What changed, amplified, as a data URI; "" when the photos' sizes differ or there is one face.
        against: What it was compared with, and the judges' answers.
    """

    record: FaceRecord
    pictures: tuple[Picture, ...]
    whole: bool
    difference: str
    against: list[tuple[str, list[JudgeRow]]]


def render(record: ReportRecord, original: Pixels, saved: Pixels) -> str:
    """The page as HTML.

    Args:
        record: The content of `report.json`.
        original: (H, W, 3) in [0, 1].
        saved: (H', W', 3) in [0, 1], as read back.
    """
    script = resources.files(__package__).joinpath("report.js").read_text(encoding="utf-8").strip()
    same_size = original.shape == saved.shape
    # Of a large photo some rows and columns show what changed, and fit into memory.
    before, after = (pixels[step, step] for pixels, step in ((original, _step(original)), (saved, _step(saved))))
    factor = amplification(before, after) if same_size else 0
    return page_template("cloaking", "report.html.j2").render(
        report=record,
        faces=[_face(record, face, original, saved, factor) for face in record.faces],
        headlines=words.HEADLINES,
        number=words.number,
        noticed=words.noticed,
        seen=words.most_visible([face.mask.visibility for face in record.faces if face.mask]),
        saved=SAVED.name,
        original=ORIGINAL,
        factor=factor,
        pictures={
            "original": picture(original.reduced(_PREVIEW), _PREVIEW),
            "saved": picture(saved.reduced(_PREVIEW), _PREVIEW),
            "mask": picture(amplified(before, after, factor), _PREVIEW // 2) if same_size else None,
        },
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _step(pixels: Pixels) -> slice:
    return slice(None, None, max(1, max(pixels.shape) // _PREVIEW))


def amplification(original: FloatArray, saved: FloatArray) -> int:
    """A round factor that makes nearly all of a difference fill the range from black to white."""
    typical = float(np.quantile(np.abs(saved - original).max(-1), 0.995))
    return int(min((2, 5, 10, 20, 50), key=lambda factor: abs(math.log(factor * max(typical, 1e-3) / 0.45))))


def amplified(original: FloatArray, saved: FloatArray, factor: int) -> FloatArray:
    """The difference of two photos around mid grey, `factor` times as strong as it is."""
    return np.asarray(np.clip(0.5 + factor * (saved - original), 0, 1), dtype=np.float32)


def _face(record: ReportRecord, face: FaceRecord, original: Pixels, saved: Pixels, factor: int) -> FaceView:
    pictures: tuple[Picture, ...] = ()
    whole, difference = True, ""
    if face.number <= _PICTURED_FACES:
        box = _widened(footprint(np.asarray(face.landmarks, dtype=np.float32)))
        side = _WINDOW if len(record.faces) <= _FEW_FACES else _SMALL_WINDOW
        middle, whole = _middle(box, side)
        ratio = np.array([saved.shape[1] / original.shape[1], saved.shape[0] / original.shape[0]], dtype=np.float32)
        before, after = cut(original, middle), cut(saved, middle * np.tile(ratio, 2))
        pictures = tuple(
            Picture(label, exact_picture(pixels), pixels.shape[1], pixels.shape[0])
            for label, pixels in (("Original", before), ("Protected", after))
        )
        if factor and len(record.faces) > 1:  # of one face the difference of the photos shows it
            difference = picture(amplified(cut(original, box), cut(saved, box), factor), side)
    return FaceView(face, pictures, whole, difference, _answers(record, face))


def _answers(record: ReportRecord, face: FaceRecord) -> list[tuple[str, list[JudgeRow]]]:
    judges = [card for card in record.recognizers if card.judged]
    return [
        (
            against,
            [
                JudgeRow(
                    card,
                    {limit.fmr: limit.cosine for limit in card.thresholds},
                    {
                        row.condition: row
                        for row in face.comparisons
                        if row.judge == card.name and row.against == against
                    },
                )
                for card in judges
            ],
        )
        for against in dict.fromkeys(row.against for row in face.comparisons)
    ]


def _widened(box: FloatArray) -> FloatArray:
    """A box with a tenth more on every side, so that a crop shows a head and not only a mask."""
    margin = 0.1 * (box[2:] - box[:2])
    widened: FloatArray = np.concatenate([box[:2] - margin, box[2:] + margin])
    return widened


def _middle(box: FloatArray, side: int) -> tuple[FloatArray, bool]:
    """The middle of a box, at most `side` pixels wide and high, in whole pixels; and whether that is all of it."""
    start, end = np.floor(box[:2]), np.ceil(box[2:])
    surplus = np.maximum(end - start - side, 0)
    middle: FloatArray = np.concatenate([start + np.floor(surplus / 2), end - np.ceil(surplus / 2)]).astype(np.float32)
    return middle, not surplus.any()
