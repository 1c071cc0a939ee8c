"""Photos to look for faces in: faces of LFW photos, turned and resized, pasted on pictures without people.

Used by `face_detection.py` and `train_turned_faces.py`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bauta.faces.detection import detect_faces

FloatArray = NDArray[np.floating]
# The disc around a face that is pasted, in pixels of an LFW photo; LFW photos have 250.
DISC = 105
FEATHER = 0.08
# Pictures without people that scikit-image carries: to choose thresholds and to train on, and to report on.
DEVELOPMENT_PICTURES = (
    *("brick.png", "grass.png", "gravel.png", "coffee.png", "motorcycle_left.png", "ihc.png", "rocket.jpg", "moon.png"),
    *("chelsea.png", "text.png", "page.png", "hubble_deep_field.jpg", "cell.png"),
)
DEVELOPMENT_SCENES = DEVELOPMENT_PICTURES[:8]
# People of LFW photos who are also in the aligned crops that were trained on.
ALSO_TRAINED_ON = {"Ben_Affleck", "Kate_Winslet", "Bill_Gates", "Dwayne_Johnson", "Keanu_Reeves", "Will_Smith"}


@dataclass(frozen=True)
class Cutting:
    """A photo with one face: what is pasted."""

    pixels: NDArray[np.float32]
    box: FloatArray  # x1, y1, x2, y2
    landmarks: FloatArray  # (5, 2)

    @property
    def middle(self) -> FloatArray:
        return (self.box[:2] + self.box[2:]) / 2

    @property
    def height(self) -> float:
        return float(self.box[3] - self.box[1])


@dataclass(frozen=True)
class Pasted:
    """A face in a scene: its size is the height that MTCNN's box has when it is upright."""

    size: float
    angle: float
    middle: FloatArray
    landmarks: FloatArray


def read(path: Path) -> NDArray[np.float32]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float32) / 255


def people(folder: Path, *, development: bool) -> list[Path]:
    """A third of the people for development, the others to report on; one folder each."""
    everybody = sorted(path for path in folder.iterdir() if path.is_dir())
    third = [int(hashlib.sha256(path.name.encode()).hexdigest(), 16) % 3 == 0 for path in everybody]
    return [
        path
        for path, early in zip(everybody, third, strict=True)
        if early == development and (development or path.name not in ALSO_TRAINED_ON)
    ]


def cuttings(folders: list[Path]) -> list[Cutting]:
    """The first photo of each person, where MTCNN finds a face in its middle."""
    found = []
    for folder in folders:
        pixels = read(min(folder.glob("*.jpg")))
        faces = detect_faces(pixels, detector="mtcnn")
        if not len(faces):
            continue
        centre = np.array(pixels.shape[1::-1]) / 2
        middles = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
        nearest = int(np.linalg.norm(middles - centre, axis=1).argmin())
        found.append(Cutting(pixels, faces.boxes[nearest], faces.landmarks[nearest].astype(float)))
    return found


def turn(degrees: float) -> FloatArray:
    """The matrix that turns a picture counter-clockwise as seen."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([(cosine, sine), (-sine, cosine)])


def tiled(picture: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """A picture and its mirror images, side by side until they fill the size."""
    block = np.vstack([np.hstack([picture, picture[:, ::-1]]), np.hstack([picture[::-1], picture[::-1, ::-1]])])
    counts = (-(-height // block.shape[0]), -(-width // block.shape[1]), 1)
    return np.tile(block, counts)[:height, :width].copy()


def paste(canvas: NDArray[np.float32], face: Cutting, size: float, angle: float, middle: FloatArray) -> Pasted:
    """Paste a disc around a face, turned and resized, feathered at its edge."""
    scale = size / face.height
    radius = min(*face.middle, *(np.array(face.pixels.shape[1::-1]) - 1 - face.middle), DISC)
    reach = int(np.ceil(radius * scale)) + 2
    left, top = (round(float(value)) - reach for value in middle)
    matrix = scale * turn(angle)
    offset = reach - matrix @ face.middle
    source, to_source = face.pixels, np.eye(2)
    if scale < 0.8:  # averaged before it is sampled
        source = np.asarray(cv2.resize(source, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
        to_source = np.diag(np.array(source.shape[1::-1]) / face.pixels.shape[1::-1])
    reduced = matrix @ np.linalg.inv(to_source)
    # Reducing carries the pixel centre p to s (p + 1/2) - 1/2.
    shifted = offset + (reduced - matrix) @ np.full(2, 0.5)
    side = 2 * reach + 1
    patch = cv2.warpAffine(source, np.column_stack([reduced, shifted]), (side, side), borderMode=cv2.BORDER_REPLICATE)
    rows, columns = np.mgrid[:side, :side] - reach
    opacity = np.clip((1 - np.hypot(rows, columns) / (radius * scale)) / FEATHER, 0, 1)[..., None].astype(np.float32)
    under = canvas[top : top + side, left : left + side]
    under[:] = under * (1 - opacity) + patch * opacity
    corner = np.array([left, top])
    return Pasted(size, angle, corner + reach, face.landmarks @ matrix.T + offset + corner)


def scene(
    rng: np.random.Generator,
    megapixels: float,
    pictures: list[NDArray[np.float32]],
    faces: list[Cutting],
    sizes: tuple[int, ...],
    angles: tuple[int, ...],
    count: int,
) -> tuple[NDArray[np.float32], list[Pasted]]:
    """A 4:3 photo of a picture without people, enlarged and repeated, with up to `count` faces; noise and JPEG 88."""
    height = int((megapixels * 0.75e6) ** 0.5)
    width = int(height / 0.75)
    scale = rng.uniform(1, 4)
    picture = cv2.resize(pictures[rng.integers(len(pictures))], None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    canvas = tiled(np.asarray(picture, dtype=np.float32).clip(0, 1), height, width)
    pasted: list[Pasted] = []
    for _ in range(count * 8):
        size, angle = float(rng.choice(sizes)), float(rng.choice(angles))
        reach = 1.1 * size + 5
        if len(pasted) == count or 2 * reach > height - 2:
            continue
        middle = np.array([rng.uniform(reach, width - reach - 1), rng.uniform(reach, height - reach - 1)])
        if any(np.linalg.norm(middle - other.middle) < reach + 1.1 * other.size + 5 for other in pasted):
            continue
        pasted.append(paste(canvas, faces[rng.integers(len(faces))], size, angle, middle))
    for row in range(0, height, 512):  # in strips: the scene may have 50 megapixels
        strip = canvas[row : row + 512]
        strip += 0.01 * rng.standard_normal(strip.shape, dtype=np.float32)
    encoded = (canvas.clip(0, 1) * 255).round().astype(np.uint8)
    compressed = cv2.imencode(".jpg", encoded, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return cv2.imdecode(compressed, cv2.IMREAD_COLOR).astype(np.float32) / 255, pasted


def generated(rng: np.random.Generator, side: int = 640) -> dict[str, NDArray[np.float32]]:
    """Pictures that nobody took: noise of several grains, discs, stripes, gradients and lattices."""
    found = {}
    for grain in (1, 3, 8, 24, 80):
        cells = rng.random((-(-side // grain) + 2, -(-side // grain) + 2, 3)).astype(np.float32)
        picture = cv2.resize(cells, (side, side), interpolation=cv2.INTER_CUBIC)
        found[f"noise of grain {grain}"] = np.asarray(picture, dtype=np.float32).clip(0, 1)
    for count in (40, 400):
        picture = np.full((side, side, 3), rng.random(3), np.float32)
        for _ in range(count):
            at = tuple(int(value) for value in rng.integers(side, size=2))
            cv2.circle(picture, at, int(rng.integers(5, 60)), rng.random(3).tolist(), -1, cv2.LINE_AA)
        found[f"{count} discs"] = picture
    rows, columns = np.mgrid[:side, :side] / side
    for name, wave in {
        "stripes": np.sin(60 * rows + 20 * columns),
        "rings": np.sin(90 * np.hypot(rows - 0.5, columns - 0.5)),
        "lattice": np.sin(50 * rows) * np.sin(50 * columns),
        "gradient": 2 * rows * columns - 1,
    }.items():
        found[name] = np.repeat((wave[..., None] / 2 + 0.5).astype(np.float32), 3, axis=2)
    return found
