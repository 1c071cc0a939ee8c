"""The official TIP-IM loop written out literally, one target at a time: the yardstick of speed and of equality.

Written from the method sheet's description of the official code, with no sharing of work between targets: a forward
and a backward pass for each, and one batched forward pass over the candidates. One surrogate, one face that fills its
crop. The random movements are drawn as `bauta.objectives.transports.draw_movement` draws them, so that a run with the
same seed must end in the same mask.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bauta.faces.warp import warp
from bauta.objectives.transports import draw_movement


def reference_tip_im(
    image: Tensor,
    targets: Tensor,
    surrogate: nn.Module,
    generator: torch.Generator,
    *,
    iterations: int,
    norm: str,
    epsilon: float = 12.0,
) -> Tensor:
    """Perturbation (3, H, W) of `image` (3, H, W) in [0, 1] towards the best of `targets` (K, 3, H, W)."""
    size = (image.shape[1], image.shape[2])
    identity = torch.eye(2, 3, dtype=torch.float64)[None]
    low, high = (image - epsilon / 255).clamp_min(0), (image + epsilon / 255).clamp_max(1)
    alpha = 1.5 * epsilon / iterations / 255
    with torch.no_grad():
        source = surrogate(image[None])[0]
        wanted = surrogate(targets)
    adversarial, momentum = image.clone(), torch.zeros_like(image)
    for _ in range(iterations):
        spread, turn = (0.01 + 0.09 * float(torch.rand((), generator=generator)) for _ in range(2))
        movement = draw_movement(generator, size, spread=spread, turn=turn)[None]
        candidates, momenta = [], []
        for target in wanted:
            variable = adversarial.clone().requires_grad_()
            embedding = surrogate(warp(variable[None], movement, size))[0]
            loss = (embedding - target).square().mean() - (embedding - source).square().mean()
            (gradient,) = torch.autograd.grad(loss, variable)
            moved = momentum + gradient / gradient.abs().mean()
            direction = moved.sign() if norm == "linf" else moved.numel() ** 0.5 * moved / moved.norm()
            step = alpha * direction
            candidates.append((adversarial - step).clamp(low, high))
            momenta.append(moved)
        with torch.no_grad():
            embeddings = surrogate(warp(torch.stack(candidates), identity.expand(len(candidates), 2, 3), size))
        from_source = (embeddings - source).norm(dim=1)
        to_targets = torch.cdist(embeddings, wanted)
        gains = torch.log1p((from_source[:, None] - to_targets).exp().amax(1))
        best = int(gains.argmax())
        adversarial, momentum = candidates[best], momenta[best]
    return adversarial - image
