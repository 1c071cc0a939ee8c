"""Train CenterFace further, to see faces at every angle: `python benchmarks/train_turned_faces.py DATA`.

Starts from the authors' weights and reads faces of development people only (`face_scenes.people`) and the aligned crops
that recognisers are trained on, pasted at every angle on pictures without people, beside discs of something else; and
mosaics of whole LFW photos, turned as one. Writes ``centerface_turned.onnx`` and its card into the package.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from bauta.faces.centerface import CELL, SHIPPED
from bauta.faces.crop_template import ARCFACE_112
from face_detection import skimage_pictures
from face_scenes import DEVELOPMENT_PICTURES, Cutting, cuttings, people, read, tiled, turn

CROPS = ("lfw_rest_112", "pins105_112", "pins105_more_112", "glint24_112", "glint24_more_112")
SIDE = 224
CELLS = SIDE // CELL
BATCH = 8
# Operations up to the first quarter-size features keep the authors' weights: two thirds of the time, little to learn.
FROZEN_UP_TO = "387"


class Graph(nn.Module):
    """The ONNX graph in torch, its half-precision initialisers as parameters."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.model = onnx.load(path)
        graph = self.model.graph
        stored = {tensor.name: numpy_helper.to_array(tensor).astype(np.float32) for tensor in graph.initializer}
        casts = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
        self.names = {name: f"weight_{index}" for index, name in enumerate(casts)}
        for name, stem in self.names.items():
            self.register_parameter(stem, nn.Parameter(torch.from_numpy(stored[casts[name]].copy())))
        self.operations = [node for node in graph.node if node.op_type != "Cast"]
        outputs = [node.output[0] for node in self.operations]
        self.frozen = outputs.index(FROZEN_UP_TO) + 1

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Logits of the heat map, sizes, offsets and points, as `bauta.faces.centerface` reads them."""
        values = {"image": image}
        with torch.no_grad():
            self._run(self.operations[: self.frozen], values)
        self._run(self.operations[self.frozen :], values)
        return tuple(values[name].float() for name in ("logits", "sizes", "offsets", "points"))

    def _run(self, operations: list[onnx.NodeProto], values: dict[str, Tensor]) -> None:
        for node in operations:
            inputs = [
                self.get_parameter(self.names[name]) if name in self.names else values[name] for name in node.input
            ]
            options = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
            if node.op_type in ("Conv", "ConvTranspose"):
                convolve = functional.conv2d if node.op_type == "Conv" else functional.conv_transpose2d
                result = convolve(
                    *inputs, stride=options["strides"], padding=options["pads"][:2], groups=options["group"]
                )
            elif node.op_type == "Add":
                result = inputs[0] + inputs[1]
            elif node.op_type == "Relu":
                result = inputs[0].relu()
            elif node.op_type == "Sigmoid":
                values["logits"], result = inputs[0], inputs[0].sigmoid()
            else:
                raise ValueError(f"unexpected operation {node.op_type}")
            values[node.output[0]] = result

    def save(self, path: Path, weights: dict[str, Tensor]) -> str:
        """Write the graph with these weights in half precision; returns the SHA-256."""
        casts = {node.input[0]: node.output[0] for node in self.model.graph.node if node.op_type == "Cast"}
        for tensor in self.model.graph.initializer:
            values = weights[self.names[casts[tensor.name]]].detach().numpy().astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        content = self.model.SerializeToString()
        path.write_bytes(content)
        return hashlib.sha256(content).hexdigest()


class Tiles:
    """Training tiles, drawn at random."""

    def __init__(self, data: Path, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.photos = cuttings(people(data / "lfw_photos_250", development=True))
        self.crops = sorted(path for name in CROPS for path in (data / name).rglob("*.webp"))
        self.pictures = [read(path) for path in skimage_pictures() if path.name in DEVELOPMENT_PICTURES]

    def draw(self) -> tuple[NDArray[np.uint8], list[NDArray[np.float64]]]:
        """A tile and its faces: middle, width and height, then five landmarks, (7, 2) each."""
        rng = self.rng
        tile, faces = self._mosaic() if rng.random() < 0.4 else self._pasted()
        if rng.random() < 0.3:
            tile = cv2.GaussianBlur(tile, (0, 0), rng.uniform(0.3, 1.0))
        if rng.random() < 0.15:
            tile = np.repeat(tile.mean(axis=2, keepdims=True), 3, axis=2)
        tile = (tile - 0.5) * rng.uniform(0.7, 1.2) + 0.5 + rng.uniform(-0.12, 0.12)
        tile = tile + rng.standard_normal(tile.shape, dtype=np.float32) * rng.uniform(0, 0.03)
        encoded = (tile.clip(0, 1) * 255).round().astype(np.uint8)
        if rng.random() < 0.6:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 96))]
            encoded = cv2.imdecode(cv2.imencode(".jpg", encoded, quality)[1], cv2.IMREAD_COLOR)
        return encoded, faces

    def _face(self) -> tuple[Cutting, float]:
        """A face, mirrored half of the time, and the radius of the disc around it."""
        rng = self.rng
        if rng.random() < 0.6:
            face = self.photos[rng.integers(len(self.photos))]
            size = face.pixels.shape[0]
            radius = min(*face.middle, *(size - 1 - face.middle), 105) * rng.uniform(0.72, 1)
        else:
            pixels = read(self.crops[rng.integers(len(self.crops))])
            face = Cutting(pixels, np.array([18, 9.5, 94, 110.5]), np.array(ARCFACE_112.points))
            radius = 51.0
        return (mirrored(face) if rng.random() < 0.5 else face), float(radius)

    def _pasted(self) -> tuple[NDArray[np.float32], list[NDArray[np.float64]]]:
        rng = self.rng
        tile = self._background()
        for _ in range(rng.integers(0, 5)):
            self._distract(tile)
        faces: list[NDArray[np.float64]] = []
        taken: list[tuple[NDArray[np.float64], float]] = []
        count = int(rng.integers(0, 12))
        for _ in range(3 * count):
            if len(faces) == count:
                break
            size = float(np.exp(rng.uniform(np.log(13), np.log(48))) if rng.random() < 0.8 else rng.uniform(48, 115))
            middle = rng.uniform(0.45 * size, SIDE - 0.45 * size, 2)
            if any(np.linalg.norm(middle - other) < 0.95 * (size + extent) for other, extent in taken):
                continue
            taken.append((middle, size))
            angle = rng.uniform(0, 360) if rng.random() < 0.85 else rng.normal(0, 8)
            face, radius = self._face()
            matrix = size / face.height * turn(angle)
            shown = warped(face.pixels, matrix, middle - matrix @ face.middle)
            self._blend(tile, shown, middle, radius * size / face.height)
            faces.append(described(face, matrix, middle - matrix @ face.middle))
        return tile, faces

    def _mosaic(self) -> tuple[NDArray[np.float32], list[NDArray[np.float64]]]:
        """Whole photos side by side, turned as one."""
        rng = self.rng
        side = int(np.exp(rng.uniform(np.log(34), np.log(240))))
        count = -(-int(1.5 * SIDE) // side) + 1
        matrix = turn(rng.uniform(0, 360))
        offset = SIDE / 2 - matrix @ np.full(2, count * side / 2) + rng.uniform(-side / 3, side / 3, 2)
        whole = np.empty((count * side, count * side, 3), np.float32)
        faces = []
        for row, column in np.ndindex(count, count):
            face = self.photos[rng.integers(len(self.photos))]
            face = mirrored(face) if rng.random() < 0.5 else face
            ratio = side / face.pixels.shape[0]
            corner = np.array([column * side, row * side])
            reduced = cv2.resize(face.pixels, (side, side), interpolation=cv2.INTER_AREA)
            whole[corner[1] : corner[1] + side, corner[0] : corner[0] + side] = reduced
            into = ratio * matrix
            moved = offset + matrix @ (corner + (ratio - 1) / 2)
            faces.append(described(face, into, moved))
        inside = [face for face in faces if (face[0] > 2).all() and (face[0] < SIDE - 3).all()]
        return warped(whole, matrix, offset, border=cv2.BORDER_REFLECT), inside

    def _background(self) -> NDArray[np.float32]:
        rng = self.rng
        if rng.random() < 0.2:
            cells = rng.random((*rng.integers(3, 40, 2), 3)).astype(np.float32)
            return np.asarray(cv2.resize(cells, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)).clip(0, 1)
        picture = self.pictures[rng.integers(len(self.pictures))]
        scale = float(np.exp(rng.uniform(np.log(0.3), np.log(2.5))))
        if rng.random() < 0.7:
            scale = max(scale, (SIDE + 2) / min(picture.shape[:2]))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        picture = np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=interpolation))
        picture = tiled(picture, max(SIDE, picture.shape[0]), max(SIDE, picture.shape[1]))
        top, left = (int(rng.integers(side - SIDE + 1)) for side in picture.shape[:2])
        part = picture[top : top + SIDE, left : left + SIDE]
        part = part[..., rng.permutation(3)] if rng.random() < 0.3 else part
        return np.ascontiguousarray(np.rot90(part, rng.integers(4)), dtype=np.float32)

    def _distract(self, tile: NDArray[np.float32]) -> None:
        """Paste a disc of another picture or of the corner of a photo: a disc alone is not a sign of a face."""
        rng = self.rng
        if rng.random() < 0.6:
            other = self._background()
        else:
            corner = np.rot90(self.photos[rng.integers(len(self.photos))].pixels, rng.integers(4))[:45, :45]
            other = cv2.resize(np.ascontiguousarray(corner), (SIDE, SIDE))
        self._blend(tile, other, rng.uniform(0, SIDE, 2), float(np.exp(rng.uniform(np.log(10), np.log(70)))))

    def _blend(
        self, tile: NDArray[np.float32], over: NDArray[np.float32], middle: NDArray[np.float64], radius: float
    ) -> None:
        rows, columns = np.mgrid[:SIDE, :SIDE]
        distance = np.hypot(columns - middle[0], rows - middle[1]) / radius
        opacity = np.clip((1 - distance) / self.rng.uniform(0.05, 0.3), 0, 1)[..., None].astype(np.float32)
        tile[:] = tile * (1 - opacity) + over * opacity


def mirrored(face: Cutting) -> Cutting:
    last = face.pixels.shape[1] - 1
    box = np.array([last, 0, last, 0]) + face.box[[2, 1, 0, 3]] * (-1, 1, -1, 1)
    landmarks = face.landmarks[[1, 0, 2, 4, 3]] * (-1, 1) + (last, 0)
    return Cutting(face.pixels[:, ::-1], box, landmarks)


def warped(
    pixels: NDArray[np.float32], matrix: NDArray[np.floating], offset: NDArray[np.floating], *, border: int = 1
) -> NDArray[np.float32]:
    """A tile that shows pixels p at matrix p + offset, averaged first when they get smaller."""
    scale = float(np.sqrt(np.linalg.det(matrix)))
    ratio = np.ones(2)
    source = np.ascontiguousarray(pixels)
    if scale < 0.8:
        source = np.asarray(cv2.resize(source, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
        ratio = np.array(source.shape[1::-1]) / pixels.shape[1::-1]
    reduced = matrix / ratio
    shifted = offset + (reduced - matrix) @ np.full(2, 0.5)
    return np.asarray(cv2.warpAffine(source, np.column_stack([reduced, shifted]), (SIDE, SIDE), borderMode=border))


def described(face: Cutting, matrix: NDArray[np.floating], offset: NDArray[np.floating]) -> NDArray[np.float64]:
    """Middle, width and height of the ellipse in the turned box, and landmarks, in the tile: (7, 2)."""
    sides = np.sqrt(matrix**2 @ (face.box[2:] - face.box[:2]) ** 2)
    points = np.concatenate([face.middle[None], face.landmarks]) @ matrix.T + offset
    return np.concatenate([points[:1], sides[None], points[1:]])


def targets(batch: list[list[NDArray[np.float64]]]) -> tuple[Tensor, Tensor, Tensor]:
    """The heat map (N, h, w), and cells (K, 3) with the 14 values that the network is to say of each."""
    heat = np.zeros((len(batch), CELLS, CELLS), np.float32)
    rows, columns = np.mgrid[:CELLS, :CELLS]
    cells, values, peaks = [], [], []
    for index, faces in enumerate(batch):
        for middle, sides, *landmarks in faces:
            place = (middle + 0.5) / CELL - 0.5
            peak = np.round(place).astype(int).clip(0, CELLS - 1)
            deviation = max(0.8, 0.12 * sides.min() / CELL)
            hill = np.exp(-((columns - peak[0]) ** 2 + (rows - peak[1]) ** 2) / (2 * deviation**2))
            heat[index] = np.maximum(heat[index], hill)
            peaks.append((index, peak[1], peak[0]))
            points = (np.array(landmarks) - (middle - sides / 2)) / sides
            for step in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
                cell = peak + step
                if (cell >= 0).all() and (cell < CELLS).all():
                    cells.append((index, cell[1], cell[0]))
                    offset = (place - cell)[::-1]
                    values.append([*np.log(sides[::-1] / CELL), *offset, *points[:, ::-1].reshape(-1)])
    for peak in peaks:
        heat[peak] = 1
    said = torch.tensor(np.array(values, np.float32).reshape(-1, 14))
    return torch.from_numpy(heat), torch.tensor(cells, dtype=torch.long).reshape(-1, 3), said


def loss(answers: tuple[Tensor, ...], heat: Tensor, cells: Tensor, values: Tensor) -> Tensor:
    """CenterNet's focal loss, and the smooth distance of what is said at the cells around each middle."""
    logits, *said = answers
    likely = logits[:, 0].sigmoid().clamp(1e-5, 1 - 1e-5)
    peak = (heat == 1).float()
    focal = peak * (1 - likely) ** 2 * likely.log() + (1 - peak) * (1 - heat) ** 4 * likely**2 * (1 - likely).log()
    total = -focal.sum() / peak.sum().clamp(min=1)
    if len(cells):
        image, row, column = cells.T
        at = torch.cat([part[image, :, row, column] for part in said], dim=1)
        apart = functional.smooth_l1_loss(at, values, reduction="none", beta=0.05)
        total = total + 2 * (apart[:, :2].mean() + 0.5 * apart[:, 2:4].mean() + 2 * apart[:, 4:].mean())
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=SHIPPED / "centerface_turned.onnx")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tiles, network = Tiles(options.data, options.seed), Graph(SHIPPED / "centerface.onnx")
    optimiser = torch.optim.AdamW(network.parameters(), options.rate, weight_decay=1e-4)
    average = {name: value.detach().clone() for name, value in network.named_parameters()}
    began = time.monotonic()
    for step in range(options.steps):
        share = step / options.steps
        rate = options.rate * min(1, (step + 1) / 50) * (0.02 + 0.49 * (1 + np.cos(np.pi * share)))
        optimiser.param_groups[0]["lr"] = rate
        drawn = [tiles.draw() for _ in range(BATCH)]
        images = torch.from_numpy(np.stack([tile for tile, _ in drawn])).permute(0, 3, 1, 2).float()
        with torch.autocast("cpu", torch.bfloat16):
            answers = network(images)
        value = loss(answers, *targets([faces for _, faces in drawn]))
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                average[name].lerp_(parameter, 1 - min(0.995, (step + 1) / (step + 11)))
        if step % 50 == 0:
            print(f"{step} of {options.steps}, loss {value.item():.3f}, {time.monotonic() - began:.0f} s", flush=True)
    print("sha256", network.save(options.output, average))


if __name__ == "__main__":
    main()
