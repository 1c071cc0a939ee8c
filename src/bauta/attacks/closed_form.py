"""Attackers in closed form: kernel ridge regression from stored numbers to the face, or to the recogniser's template.

There is nothing to train: numbers are standardised and projected on their principal components, and one linear system
is solved (Saunders, Gammerman and Vovk 1998). It takes seconds to a few minutes of one core and a few hundred to a few
thousand protected faces. Kernel, width and ridge are those that do best on people of the attacker's own whom the fit
did not see. The choices are our design.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from bauta.errors import NumericalFailure, UsageError
from bauta.learning.fitting import Inputs
from bauta.progress import Steps, silent
from bauta.settings import Range, Settings

Kernel = Literal["linear", "rbf"]
_BLOCK = 256  # rows at once


@dataclass(frozen=True)
class KernelConfig(Settings):
    """What is tried.

    Attributes:
        kernels: ``linear``, or ``rbf``, a Gaussian of the distance.
        components: Principal components that are kept at most.
        widths: Of the Gaussian, in units of the median distance.
        ridges: In units of the mean squared length, or of the kernel's largest value.
        held: Share of the people by whom the choice is made.
    """

    title: ClassVar[str] = "a kernel attacker"
    kernels: tuple[Kernel, ...] = ("linear", "rbf")
    components: Annotated[int, Range(at=1, to=65_536)] = 1024
    widths: Annotated[tuple[float, ...], Range(above=0, to=1000)] = (0.5, 1.0, 2.0, 4.0)
    ridges: Annotated[tuple[float, ...], Range(above=0, to=1_000_000)] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    held: Annotated[float, Range(above=0, to=0.5)] = 0.15

    def problems(self) -> Iterator[tuple[str, str]]:
        """Lists of nothing to try."""
        yield from ((name, "Name one at least.") for name in ("kernels", "widths", "ridges") if not getattr(self, name))


class Projection:
    """Numbers (N, ...) standardised one by one, and their principal components.

    Args:
        values: (N, ...) to learn from.
        components: How many are kept at most.
    """

    def __init__(self, values: Tensor, components: int) -> None:
        flat = values.flatten(1)
        self.mean, self.scale = flat.float().mean(0), flat.float().std(0).clamp_min(1e-6)
        standard = self._standard(flat)
        variances, vectors = torch.linalg.eigh((standard @ standard.T).double())
        kept = min(components, len(values) - 1)
        lengths = variances[-kept:].clamp_min(max(1e-9 * float(variances[-1]), 1e-12)).sqrt()  # nothing may vary
        self.axes = standard.T @ (vectors[:, -kept:] / lengths).float()

    def __call__(self, values: Tensor) -> Tensor:
        """(N, components) float64."""
        return torch.cat([self._standard(part) @ self.axes for part in torch.split(values.flatten(1), _BLOCK)]).double()

    def _standard(self, flat: Tensor) -> Tensor:
        return (flat.float() - self.mean) / self.scale


class KernelRidge:
    """A solved regression.

    Args:
        points: (N, P) to learn from.
        kernel: Its form.
        width: Of the Gaussian, in units of the median distance.
        ridge: See `KernelConfig`.
    """

    def __init__(self, points: Tensor, kernel: Kernel, width: float, ridge: float) -> None:
        self.points, self.kernel, self.width, self.ridge = points, kernel, width, ridge
        some = points[:: max(1, len(points) // 512)]
        self.unit = (
            float(torch.pdist(some).median()) if kernel == "rbf" else float(points.square().sum(1).mean().sqrt())
        )
        self.unit = max(self.unit, 1e-12)
        gram = self.similarity(points)
        gram.diagonal().add_(ridge)
        factor, failed = torch.linalg.cholesky_ex(gram)
        if int(failed):
            raise NumericalFailure("A kernel matrix cannot be factored.", hint="Raise the ridge.")
        self.factor = factor

    def similarity(self, points: Tensor) -> Tensor:
        """(M, N) kernel values of points (M, P) and those it learned from."""
        if self.kernel == "linear":
            return points @ self.points.T / self.unit**2
        return torch.exp(-0.5 * (torch.cdist(points, self.points) / (self.width * self.unit)).square())

    def weights(self, points: Tensor) -> Tensor:
        """(M, N): what each point's answer takes of each learned target's distance from their mean."""
        return torch.cholesky_solve(self.similarity(points).T, self.factor).T


@dataclass(frozen=True, eq=False)
class KernelDecoder:
    """Answers stored numbers with what `fit_kernel` was given for others.

    Attributes:
        projection: Of the numbers.
        regression: On the components.
        targets: (N, T) of any type.
        mean: (T,) of the targets.
        fitted: What was chosen, and how well it did on the people who were held out.
    """

    projection: Projection
    regression: KernelRidge
    targets: Tensor
    mean: Tensor
    fitted: Mapping[str, float]

    def answer(self, values: Tensor) -> Tensor:
        """(M, T) float32 for stored numbers (M, ...)."""
        weights = self.regression.weights(self.projection(values)).float()
        answers = weights.new_zeros(len(weights), self.targets.shape[1])
        for place in range(0, len(self.targets), _BLOCK):  # pixels are many: no copy of all in float32
            part = self.targets[place : place + _BLOCK].float() - self.mean
            answers += weights[:, place : place + _BLOCK] @ part
        answers += self.mean
        if not bool(answers.isfinite().all()):
            raise NumericalFailure("A regression answers with NaN or infinity.", hint="Check the stored numbers.")
        return answers

    def reconstruct(self, values: Tensor) -> Tensor:
        """The faces (M, 3, 112, 112) in [0, 1] that it sees in stored numbers, when its targets are uint8 pixels."""
        side = round((self.targets.shape[1] / 3) ** 0.5)
        return (self.answer(values) / 255).clamp(0, 1).reshape(-1, 3, side, side)

    def embed(self, inputs: Inputs) -> Tensor:
        """Unit-norm templates (M, D) of stored numbers, when its targets are templates."""
        return torch.nn.functional.normalize(self.answer(inputs[torch.arange(len(inputs))]), dim=1)


def fit_kernel(
    values: Tensor,
    targets: Tensor,
    people: Sequence[str],
    config: KernelConfig,
    progress: Steps = silent,
) -> KernelDecoder:
    """Solve for targets from stored numbers.

    Args:
        values: (N, ...) stored numbers of the attacker's own faces.
        targets: (N, ...) pixels, uint8, or templates of unit norm.
        people: The person of each.
        config: What to try.
        progress: Called with the choices tried and those there are.

    Raises:
        UsageError: when they do not go together, or are of fewer than four people.
        NumericalFailure: when a system cannot be solved.
    """
    if not len(values) == len(targets) == len(people) or len(set(people)) < 4:
        raise UsageError(
            f"{len(values)} representations, {len(targets)} targets and {len(set(people))} people make no regression.",
            hint="Give a target for each, of four people at least.",
        )
    wanted = targets.flatten(1)
    mean = wanted.float().mean(0)
    projection = Projection(values, config.components)
    points = projection(values)
    names = sorted(set(people))
    held = set(names[:: max(2, round(1 / config.held))])
    outside = torch.tensor([one in held for one in people])
    compared = _compressed(wanted, mean)
    choices = [
        (kernel, width, ridge)
        for kernel in config.kernels
        for width in (config.widths if kernel == "rbf" else (1.0,))
        for ridge in config.ridges
    ]
    errors = []
    for place, choice in enumerate(choices):
        regression = KernelRidge(points[~outside], *choice)
        answers = regression.weights(points[outside]) @ compared[~outside]
        errors.append(float((answers - compared[outside]).square().sum(1).mean()))
        progress(place + 1, len(choices))
    best = min(range(len(choices)), key=errors.__getitem__)
    kernel, width, ridge = choices[best]
    spread = float(compared[outside].square().sum(1).mean())
    fitted = {
        "gaussian": float(kernel == "rbf"),
        "width": width,
        "ridge": ridge,
        "unexplained": round(errors[best] / max(spread, 1e-12), 6),
    }
    return KernelDecoder(projection, KernelRidge(points, kernel, width, ridge), wanted, mean, fitted)


def _compressed(targets: Tensor, mean: Tensor) -> Tensor:
    """(N, at most N) float64 with the distances of targets from each other and from their mean."""
    if targets.shape[1] <= len(targets):
        return targets.double() - mean
    inner = torch.zeros(len(targets), len(targets), dtype=torch.float64)
    for part in torch.split(torch.arange(targets.shape[1]), 4096):
        centred = (targets[:, part].float() - mean[part]).double()
        inner += centred @ centred.T
    variances, vectors = torch.linalg.eigh(inner)
    coordinates: Tensor = vectors * variances.clamp_min(0).sqrt()
    return coordinates
