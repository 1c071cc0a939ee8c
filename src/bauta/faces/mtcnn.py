"""The three networks of MTCNN, with the weights that the `mtcnn` package carries.

Zhang et al., Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks, SPL 2016.
The weights are in TensorFlow's layout, in joblib files; they are checked by hash, read by a loader that
admits nothing but plain arrays, and converted at load. The package itself is never imported: it would want
TensorFlow.
"""

from __future__ import annotations

import hashlib
import io
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib.numpy_pickle import NumpyArrayWrapper, NumpyUnpickler
from numpy.typing import NDArray
from torch import Tensor, nn

from bauta.errors import WeightsCorrupt, WeightsMissing

# SHA-256 of the files of mtcnn 1.0.0.
WEIGHTS = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}
REINSTALL = "Reinstall it: pip install --force-reinstall --no-deps mtcnn==1.0.0."
# Far above any of the three networks; a file that claims more is not one of them.
LARGEST_DECOMPRESSED = 64 * 2**20


class _ColumnMajor(nn.Module):
    """Flattens (N, C, H, W) column by column with channels innermost, as the networks were trained."""

    def forward(self, features: Tensor) -> Tensor:
        return features.permute(0, 3, 2, 1).flatten(1)


class ProposalNetwork(nn.Module):
    """P-Net: slides a 12x12 window with stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 10, 3),
            nn.PReLU(10),
            # TensorFlow's "same" pooling pads at the end only, which is what ceil_mode does.
            nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.Conv2d(10, 16, 3),
            nn.PReLU(16),
            nn.Conv2d(16, 32, 3),
            nn.PReLU(32),
        )
        self.box = nn.Conv2d(32, 4, 1)
        self.face = nn.Conv2d(32, 2, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) in about [-1, 1] to box offsets (N, 4, h, w) and face probabilities (N, h, w)."""
        features = self.trunk(image)
        return self.box(features), self.face(features).softmax(dim=1)[:, 1]


class RefinementNetwork(nn.Module):
    """R-Net: judges 24x24 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 28, 3),
            nn.PReLU(28),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(28, 48, 3),
            nn.PReLU(48),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(48, 64, 2),
            nn.PReLU(64),
            _ColumnMajor(),
            nn.Linear(576, 128),
            nn.PReLU(128),
        )
        self.box = nn.Linear(128, 4)
        self.face = nn.Linear(128, 2)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, 24, 24) in about [-1, 1] to box offsets (N, 4) and face probabilities (N,)."""
        features = self.trunk(patches)
        return self.box(features), self.face(features).softmax(dim=1)[:, 1]


class OutputNetwork(nn.Module):
    """O-Net: judges 48x48 patches and finds the five landmarks."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 32, 3),
            nn.PReLU(32),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(32, 64, 3),
            nn.PReLU(64),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 64, 3),
            nn.PReLU(64),
            nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.Conv2d(64, 128, 2),
            nn.PReLU(128),
            _ColumnMajor(),
            nn.Linear(1152, 256),
            nn.PReLU(256),
        )
        self.box = nn.Linear(256, 4)
        self.landmarks = nn.Linear(256, 10)
        self.face = nn.Linear(256, 2)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 3, 48, 48) in about [-1, 1] to box offsets (N, 4), landmarks (N, 5, 2) and probabilities (N,).

        Landmarks are (x, y) as fractions of the patch.
        """
        features = self.trunk(patches)
        landmarks = self.landmarks(features).unflatten(1, (2, 5)).transpose(1, 2)
        return self.box(features), landmarks, self.face(features).softmax(dim=1)[:, 1]


@cache
def load_networks() -> tuple[ProposalNetwork, RefinementNetwork, OutputNetwork]:
    """The three networks, frozen and in evaluation mode, loaded once per process.

    Raises:
        WeightsMissing: when the `mtcnn` package is not installed.
        WeightsCorrupt: when a file has another hash or does not hold what it should.
    """
    networks = (ProposalNetwork(), RefinementNetwork(), OutputNetwork())
    for network, (name, digest) in zip(networks, WEIGHTS.items(), strict=True):
        path = _assets() / f"{name}.lz4"
        _fill(network, read_arrays(path, sha256=digest), path)
        network.eval().requires_grad_(False)
    return networks


def read_arrays(path: Path, *, sha256: str | None) -> list[NDArray[np.float32]]:
    """The list of arrays in a joblib file compressed with lz4, and nothing else.

    Nothing in the file can run code: the unpickler knows numpy's array and dtype and no other global, and
    arrays hold numbers only.

    Args:
        path: The file.
        sha256: The hash it must have; None to skip that check.

    Raises:
        WeightsMissing: when the file cannot be read.
        WeightsCorrupt: when the hash differs or the content is anything but a list of arrays of numbers.
    """
    from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]

    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsMissing(f"Cannot read {path}: {error.strerror}.", hint=REINSTALL) from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise WeightsCorrupt(f"{path} is not the file of mtcnn 1.0.0: its SHA-256 differs.", hint=REINSTALL)
    try:
        stream = io.BytesIO(LZ4FrameDecompressor().decompress(data, max_length=LARGEST_DECOMPRESSED))
        arrays = _ArrayUnpickler(stream).load()
    except WeightsCorrupt:
        raise
    # A damaged pickle fails in as many ways as there are opcodes.
    except Exception as error:
        raise WeightsCorrupt(f"{path} is damaged: {error}.", hint=REINSTALL) from error
    if not isinstance(arrays, list) or not all(type(array) is np.ndarray for array in arrays):
        raise WeightsCorrupt(f"{path} holds something else than a list of arrays.", hint=REINSTALL)
    return arrays


class _PlainArray(NumpyArrayWrapper):  # type: ignore[misc]
    """joblib's note before an array's bytes; refuses arrays of objects, which would be pickles again."""

    def read(self, unpickler: Any, ensure_native_byte_order: bool) -> Any:
        if not isinstance(self.dtype, np.dtype) or self.dtype.kind not in "biuf":
            raise WeightsCorrupt("An array in the weights does not hold numbers.", hint=REINSTALL)
        if self.subclass is not np.ndarray:
            raise WeightsCorrupt("An array in the weights is of an unknown kind.", hint=REINSTALL)
        return super().read(unpickler, ensure_native_byte_order)


class _ArrayUnpickler(NumpyUnpickler):  # type: ignore[misc]
    """joblib's unpickler with three globals."""

    allowed = {  # noqa: RUF012  a constant, on a class whose base is not ours to annotate
        ("joblib.numpy_pickle", "NumpyArrayWrapper"): _PlainArray,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__("", stream, ensure_native_byte_order=True)

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[module, name]
        except KeyError:
            raise WeightsCorrupt(
                f"The weights ask for {module}.{name}, which no array needs.",
                hint="Do not use this file: it may be an attack. " + REINSTALL,
            ) from None


def _assets() -> Path:
    """The folder of the weights in the installed `mtcnn` package, which is located but not imported."""
    spec = find_spec("mtcnn")
    if spec is None or not spec.submodule_search_locations:
        raise WeightsMissing("The package mtcnn is not installed.", hint="pip install --no-deps mtcnn==1.0.0.")
    return Path(next(iter(spec.submodule_search_locations))) / "assets" / "weights"


def _fill(network: nn.Module, arrays: list[NDArray[np.float32]], path: Path) -> None:
    """Copy arrays in TensorFlow's layout into the parameters, which come in the same order."""
    parameters = list(network.parameters())
    converted = [_to_torch(array) for array in arrays]
    if [value.shape for value in converted] != [parameter.shape for parameter in parameters]:
        raise WeightsCorrupt(f"{path} holds the weights of another network.", hint=REINSTALL)
    with torch.no_grad():
        for parameter, value in zip(parameters, converted, strict=True):
            parameter.copy_(value)


def _to_torch(array: NDArray[np.float32]) -> Tensor:
    """A kernel (height, width, in, out), a matrix (in, out) or a vector (..., n), in torch's layout."""
    if array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)
    elif array.ndim == 2:
        array = array.T
    else:
        array = array.reshape(-1)
    return torch.from_numpy(np.ascontiguousarray(array))
