"""The embedding student: a network that says of protected faces what a recogniser says of the clean ones.

FaceLinkGen's attack, from a digest of the paper: the student is a recogniser with one 3x3 convolution in front where
the input has other channels, it starts from the teacher's weights, and minimises 1 - mean cos(student(protect(x)),
teacher(x)). No identity labels are needed, only photos that the attacker has protected. Ours: AdamW with a cosine, its
settings, mirrored photos, the resizing of features to the teacher's crop, and the small network for vectors.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from bauta.errors import NumericalFailure, UsageError, WeightsCorrupt
from bauta.files import write_atomically
from bauta.learning.decoders import Standardise
from bauta.learning.fitting import Fit, FitConfig, Inputs, fit, images, weights_sha256
from bauta.progress import Steps
from bauta.recognizers.onnx.module import trainable_copy
from bauta.recognizers.surrogates import Surrogate


@dataclass(frozen=True)
class StudentConfig(FitConfig):
    """Settings of a student's training.

    Attributes:
        flip: Mirror a random half of the inputs at every step; for photos only, not for what has no left and right.
    """

    flip: bool = False


@dataclass(frozen=True)
class Student:
    """A network that was trained to embed protected faces.

    Attributes:
        network: In evaluation mode.
        fit: How the training went.
    """

    network: nn.Module
    fit: Fit

    @torch.no_grad()
    def embed(self, inputs: Inputs, *, batch: int = 64) -> Tensor:
        """Unit-norm embeddings (N, D).

        Args:
            inputs: N of what the student was trained on.
            batch: Inputs at once.

        Raises:
            NumericalFailure: when the network answers with NaN or infinity.
        """
        return embed(self.network, inputs, batch=batch)

    def sha256(self) -> str:
        """Of the weights."""
        return weights_sha256(self.network)

    def save(self, path: Path) -> None:
        """Write the weights, and how they were reached, as one safetensors file.

        Raises:
            OutputError: when it cannot be written.
        """
        losses = " ".join(map(repr, self.fit.losses))
        state = {name: value.cpu().contiguous() for name, value in self.network.state_dict().items()}
        content = safetensors.torch.save(state, {"losses": losses, "stopped": self.fit.stopped})
        write_atomically(path, content, overwrite=True)


def load_student(path: Path, start: nn.Module, device: torch.device | None = None) -> Student:
    """A student that was saved, on a copy of the network it started from, there or on another device.

    Raises:
        WeightsCorrupt: when the file cannot be read or belongs to another network.
    """
    network: nn.Module = copy.deepcopy(start).to(device or device_of(start))
    try:
        with safetensors.safe_open(path, "pt") as file:
            facts = file.metadata()
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        losses = tuple(map(float, facts["losses"].split()))
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise WeightsCorrupt(
            f"{path} holds no such student: {error}", hint="Delete it; it is trained again."
        ) from error
    return Student(network.eval(), Fit(losses, "not finite" if facts["stopped"] == "not finite" else "epochs"))


def fit_student(
    inputs: Inputs,
    targets: Tensor,
    start: nn.Module,
    config: StudentConfig,
    generator: torch.Generator,
    progress: Steps | None = None,
    device: torch.device | None = None,
) -> Student:
    """Train a student to answer protected inputs with the teacher's embeddings of the clean photos.

    Args:
        inputs: (N, ...) photos, features or vectors as the protection leaves them; images may be uint8.
        targets: (N, D) unit-norm embeddings of the clean photos by the teacher.
        start: Network from such inputs to (n, D); a copy of it is trained. See `start_from`.
        config: Settings.
        generator: Of the order and the mirroring.
        progress: Called with steps done and steps in all.
        device: Where to learn; where `start` is by default.

    Returns:
        The student; that of the last good epoch when the loss was not finite later on.

    Raises:
        UsageError: when inputs and targets do not go together.
        NumericalFailure: when the loss was not finite in the first epoch.
    """
    if targets.dim() != 2 or len(targets) != len(inputs) or not len(targets):
        raise UsageError(
            f"{len(inputs)} inputs and targets of shape {tuple(targets.shape)} do not go together.",
            hint="Give a unit-norm embedding for each input.",
        )
    if not torch.allclose(targets.norm(dim=1), torch.ones(len(targets)), atol=1e-3):
        raise UsageError("The targets are not all of length 1.", hint="Give unit-norm embeddings.")
    if config.flip and inputs[torch.zeros(1, dtype=torch.long)].dim() != 4:
        raise UsageError("Only images can be mirrored.", hint="Leave out flip.")
    where = device or device_of(start)
    network, weights = trainable_copy(start, where)

    def loss(index: Tensor) -> Tensor:
        batch = images(inputs[index].to(where))
        if config.flip:
            batch = mirrored(batch, generator)
        answers = network(batch)
        if answers.shape != (len(index), targets.shape[1]):
            raise UsageError(
                f"The student answers with shape {tuple(answers.shape)}, the targets have {targets.shape[1]} numbers.",
                hint="Start from a network of the teacher's dimension.",
            )
        return 1 - (functional.normalize(answers, dim=1) * targets[index].to(where)).sum(1).mean()

    done = fit(network, weights, loss, len(targets), config, generator, progress)
    return Student(network.eval().requires_grad_(False), done)


def mirrored(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W) of which a random half is mirrored."""
    chosen = (torch.rand(len(batch), generator=generator) < 0.5).to(batch.device)
    return torch.where(chosen[:, None, None, None], batch.flip(3), batch)


@torch.no_grad()
def embed(network: nn.Module, inputs: Inputs, *, batch: int = 64) -> Tensor:
    """Unit-norm embeddings (N, D) of inputs by any network, wherever that is.

    Raises:
        UsageError: when there are none.
        NumericalFailure: when the network answers with NaN or infinity.
    """
    if not len(inputs):
        raise UsageError("There is nothing to embed.", hint="Give at least one input.")
    parts = torch.split(torch.arange(len(inputs)), batch)
    where = device_of(network)
    found = torch.cat([network(images(inputs[index].to(where))) for index in parts]).cpu()
    if not found.isfinite().all():
        raise NumericalFailure("A network answered with NaN or infinity.", hint="Check its training and the inputs.")
    return functional.normalize(found, dim=1)


def device_of(network: nn.Module) -> torch.device:
    """Where its first tensor is; the CPU when it has none."""
    first = next(itertools.chain(network.parameters(), network.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def start_from(
    teacher: Surrogate, shape: Sequence[int], generator: torch.Generator, examples: Tensor | None = None
) -> nn.Module:
    """A network for a student to start from, with the teacher's weights where shapes allow.

    Args:
        teacher: The recogniser to imitate.
        shape: Of one input: (3, height, width) of the teacher's crops gives the teacher itself; (C, H, W) a 3x3
            convolution to three channels, resized to those crops, before it; (D,) a network of two linear layers
            that has nothing of the teacher (our design).
        generator: Of the new weights.
        examples: (n, *shape) inputs by whose mean and deviation others are standardised first, channel by channel or
            number by number: raw coefficients differ by orders of magnitude. Images for the teacher itself are not.

    Raises:
        UsageError: when the shape is none of these.
    """
    template, dim = teacher.card.template, teacher.card.dim
    size = (template.height, template.width)
    layers: list[nn.Module] = []
    if tuple(shape) == (3, *size):
        return teacher
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise UsageError(f"No student reads inputs of shape {tuple(shape)}.", hint="Give (C, H, W) or (D,).")
    if examples is not None:
        layers.append(Standardise(examples.float()))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        if len(shape) == 1:
            return nn.Sequential(*layers, nn.Linear(shape[0], 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        layers.append(nn.Conv2d(shape[0], 3, 3, padding=1))
    if tuple(shape[1:]) != size:
        layers.append(nn.Upsample(size=size, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers, teacher)
