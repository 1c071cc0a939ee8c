"""CenterFace: a network that sees faces of 12 to about 100 pixels anywhere in an image.

Xu et al., CenterFace: Joint Face Detection and Alignment Using Face as Point, Scientific Programming 2020,
arXiv:1911.03599. Two sets of weights travel with Bauta (`shipped/`): the authors', which knows upright faces, and
ours, trained further from theirs, which sees faces at every angle. ONNX Runtime runs both.
"""

from __future__ import annotations

import hashlib
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from bauta.errors import WeightsCorrupt, WeightsMissing
from bauta.faces.faces import Faces

# The weights: the authors', for upright faces, and ours, for faces at every angle.
Weights = Literal["centerface", "centerface_turned"]
Shipped = Literal["centerface", "centerface_turned", "face_mesh"]
SHIPPED = Path(__file__).parent / "shipped"
# Sides of an image are multiples of this, and one cell of the network's answer has this many pixels.
MULTIPLE = 32
CELL = 4
REINSTALL = "Reinstall Bauta."


def look(images: NDArray[np.float32], threshold: float, weights: Weights) -> list[Faces]:
    """The faces that the network sees in images of one size, without suppression of overlaps.

    Args:
        images: (N, H, W, 3) in [0, 1]; H and W are multiples of 32.
        threshold: Scores must exceed it.
        weights: Which.

    Returns:
        N sets of faces in pixels of their image, the best first.

    Raises:
        WeightsMissing, WeightsCorrupt: when the weights cannot be used.
    """
    inputs = np.ascontiguousarray((images * np.float32(255)).transpose(0, 3, 1, 2), dtype=np.float32)
    answers = load_session(weights).run(None, {"image": inputs})
    return [_decode(*(answer[index] for answer in answers), threshold=threshold) for index in range(len(inputs))]


@cache
def load_session(weights: Shipped) -> Any:
    """ONNX Runtime's session of one set of weights, loaded once per process.

    Raises:
        WeightsMissing: when the file or its card cannot be read.
        WeightsCorrupt: when the file is not the one that its card names.
    """
    import onnxruntime

    path = SHIPPED / f"{weights}.onnx"
    try:
        content = path.read_bytes()
        digest = tomllib.loads(path.with_suffix(".toml").read_text(encoding="utf-8"))["sha256"]
    except OSError as error:
        raise WeightsMissing(f"Cannot read {error.filename}: {error.strerror}.", hint=REINSTALL) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise WeightsCorrupt(f"{path} is not the file of its card: its SHA-256 differs.", hint=REINSTALL)
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Tiles differ in size, and threads that wait by spinning take the processor from torch.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def give_back_memory() -> None:
    """Let go of what the network for every angle keeps for the next image: a hundred megabytes after a large one."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    least = np.zeros((1, 3, MULTIPLE, MULTIPLE), np.float32)  # it lets go at the end of a run, so it has to run
    load_session("centerface_turned").run(None, {"image": least}, options)


def _decode(
    heat: NDArray[np.float32],
    sizes: NDArray[np.float32],
    offsets: NDArray[np.float32],
    points: NDArray[np.float32],
    *,
    threshold: float,
) -> Faces:
    """Faces from what the network says of each cell: the peaks of the heat map, and what belongs to them.

    Args:
        heat: (1, h, w) probabilities that a face's centre is in the cell.
        sizes: (2, h, w) logarithms of height and width in cells.
        offsets: (2, h, w) of the centre from the cell's, y and x, in cells.
        points: (10, h, w) five landmarks, y and x, as fractions of the box.
        threshold: Probabilities must exceed it.
    """
    peaks = (heat[0] > threshold) & (heat[0] >= cv2.dilate(heat[0], np.ones((3, 3), np.uint8)))
    rows, columns = np.nonzero(peaks)
    scores = heat[0, rows, columns]
    # No face is larger than the image it is seen in by far; exp of a wild answer would be infinite.
    side = np.exp(np.minimum(sizes[:, rows, columns].T, np.log(4 * max(heat.shape)))) * CELL
    centre = (np.stack([rows, columns], axis=1) + offsets[:, rows, columns].T + 0.5) * CELL - 0.5
    corner = centre - side / 2
    landmarks = points[:, rows, columns].T.reshape(-1, 5, 2) * side[:, None] + corner[:, None]
    boxes = np.concatenate([corner[:, ::-1], (corner + side)[:, ::-1]], axis=1)
    order = np.argsort(-scores, kind="stable")
    return Faces(boxes, landmarks[..., ::-1], scores)[order]
