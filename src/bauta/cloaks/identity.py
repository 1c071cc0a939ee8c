"""Whom a face is taken for: the loss that cloaks go down, and its gradient with respect to the photo.

Shared by TIP-IM and by the masks that move. A pass goes through a random transport, shared by all surrogates, and a
random movement of the crop for each (expectation over transformations, Athalye et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bauta.cloaks.album import SAME_PHOTO, Album
from bauta.cloaks.base import Mode
from bauta.cloaks.view import FaceView
from bauta.objectives.transports import Transport, draw_movement, draw_transport
from bauta.recognizers.ensemble import Ensemble

_TEMPERATURE = 0.05
_REACH = 0.05  # below the threshold, from where on protected photos push each other away


class IdentityLoss:
    """Cosine with the person and with target faces, summed over surrogates, for a batch of N views.

    Args:
        views: The faces.
        images: (N, 3, H, W), their pixels, stacked.
        ensemble: Recognisers to attack.
        targets: (K, 3, 112, 112) faces to be taken for; None to move away from the person alone.
        generator: Of all draws.
        mode: ``dodge``, ``impersonate``, or ``combined``.
        away: Weight of moving away from the person beside moving towards a target, in ``combined``.
        greedy: One gradient for each of the targets in `tried`, instead of one towards the nearest.
        movement: Range of the standard deviations of the random movement of the crop; (0, 0) for none.
        scale: Largest share by which a crop is made wider or tighter.
        mirror: Probability that a crop is seen in a mirror.
        noise: Greatest standard deviation of the noise on a crop, in [0, 1] units.
        transports: Whether a transport is drawn.
        limits: Cosine from which on each surrogate takes two faces for one person; None where it is not known.
        album: Photos protected before.
    """

    def __init__(
        self,
        views: Sequence[FaceView],
        images: Tensor,
        ensemble: Ensemble,
        targets: Tensor | None,
        generator: torch.Generator,
        *,
        mode: Mode = "dodge",
        away: float = 1.0,
        greedy: bool = False,
        movement: tuple[float, float] = (0.0, 0.0),
        scale: float = 0.0,
        mirror: float = 0.0,
        noise: float = 0.0,
        transports: bool = False,
        limits: Sequence[float | None] = (),
        album: Album | None = None,
    ) -> None:
        self.faces = ensemble.looking_at([view.landmarks for view in views])
        self.generator, self.movement, self.scale = generator, movement, scale
        self.mirror, self.noise = mirror, noise
        self.transports, self.greedy = transports, greedy
        self.away = 0.0 if mode == "impersonate" else away
        self.apart = 0.0
        self.limits = list(limits) or [None] * len(ensemble)
        self.names, self.album = ensemble.names, album
        self.targets: list[Tensor] | None = None
        with torch.no_grad():
            self.sources = self.faces.all(images)
            if targets is not None:
                self.targets = ensemble.templates(targets)
                self.tried = torch.arange(len(targets))[:, None].expand(-1, len(images))  # (K tried, N) indices
                similarities = [source @ wanted.T for source, wanted in zip(self.sources, self.targets, strict=True)]
                self.affinity = torch.stack(similarities).mean(0)
        self.present = [source.clone() for source in self.sources]

    def gradients(self, pictures: Tensor) -> Tensor:
        """(K, N, 3, H, W) gradients of the loss at pictures (N, 3, H, W); K is 1 unless `greedy`."""
        photos = pictures.detach().requires_grad_()
        with torch.enable_grad():
            shared = draw_transport(self.generator)(photos) if self.transports else photos
        if self.targets is not None:
            self.nearest = self.affinity.argmax(1)
        leaf = shared.detach().requires_grad_()
        total: Tensor | None = None
        for index in range(len(self.faces)):
            with torch.enable_grad():
                embedding = self.faces.embed(index, leaf, movement=self._movement(index), through=self._seen())
            seen = embedding.detach()
            cotangents = self._cotangents(index, seen)
            if self.apart:
                cotangents = cotangents + self.apart * self._others(index, seen)
            part = _vector_jacobian(embedding, leaf, cotangents)
            total = part if total is None else total + part
        assert total is not None
        return total if shared is photos else _vector_jacobian(shared, photos, total)

    def closest(self, pictures: Tensor, received: Sequence[Transport]) -> Tensor:
        """By how much the worst surrogate, on the worst way, is past its limit for each face: (N,), positive is past.

        The person must be below the limit, a target above it; a surrogate without one has no say.

        Args:
            pictures: (N, 3, H, W) in [0, 1].
            received: What may happen to them on the way.
        """
        least = torch.full((len(pictures),), torch.inf)
        with torch.no_grad():
            for through in received:
                shared = through(pictures)
                for index, limit in enumerate(self.limits):
                    if limit is None:
                        continue
                    embedding = self.faces.embed(index, shared)
                    if self.away or self.targets is None:
                        least = least.minimum(limit - (embedding * self.sources[index]).sum(1))
                    if self.targets is not None:
                        least = least.minimum((embedding @ self.targets[index].T).amax(1) - limit)
        return least

    def _seen(self) -> Callable[[Tensor], Tensor] | None:
        """What happens to the crops of one surrogate: recognisers know a face in a mirror, and through some noise."""
        if not self.mirror and not self.noise:
            return None
        mirrored, strength = torch.rand(2, generator=self.generator).tolist()

        def through(crops: Tensor) -> Tensor:
            noise = torch.randn(crops.shape[1:], generator=self.generator) * self.noise * strength
            crops = crops + noise  # the same for all faces, so that none depends on its company
            return crops.flip(3) if mirrored < self.mirror else crops

        return through

    def _movement(self, index: int) -> Tensor | None:
        low, high = self.movement
        if high == 0:
            return None
        spread, turn = (low + (high - low) * float(torch.rand((), generator=self.generator)) for _ in range(2))
        return draw_movement(self.generator, self.faces.size(index), spread=spread, turn=turn, scale=self.scale)

    def _others(self, index: int, embedding: Tensor) -> Tensor:
        """(N, D) gradient of how well each face matches other protected photos of its person.

        Of those that it is about to match, or matches, the nearest count most: a soft maximum over their excess.
        """
        limit, source = self.limits[index], self.sources[index]
        present = torch.nn.functional.normalize(0.7 * self.present[index] + 0.3 * embedding, dim=1)
        self.present[index] = present
        if limit is None:
            return torch.zeros_like(embedding)
        same = source @ source.T >= limit
        same.fill_diagonal_(False)
        queue = present
        if self.album is not None and self.names[index] in self.album.sources:
            name = self.names[index]
            alike = source @ self.album.sources[name].T
            same = torch.cat([same, (alike >= limit) & (alike < SAME_PHOTO)], 1)
            queue = torch.cat([queue, self.album.protected[name]])
        excess = embedding @ queue.T - limit + _REACH
        weights = (excess / _TEMPERATURE).masked_fill(~same | (excess <= 0), -torch.inf).softmax(1).nan_to_num(0.0)
        pushed: Tensor = weights @ queue
        return pushed

    def remember(self, pictures: Tensor) -> None:
        """Add the faces, as protected, to the album."""
        if self.album is not None:
            with torch.no_grad():
                for name, source, protected in zip(self.names, self.sources, self.faces.all(pictures), strict=True):
                    self.album.add(name, source, protected)

    def _cotangents(self, index: int, embedding: Tensor) -> Tensor:
        """(K, N, D) gradients of the loss with respect to the embedding."""
        source = self.sources[index]
        if self.targets is None:
            return source[None]
        targets = self.targets[index]
        away = source * self.away
        if self.greedy:
            # The mean over dimensions, not the sum, as in the official code: it matters beside the MMD term.
            return 2 * (away - targets[self.tried]) / source.shape[1]
        # One target for all surrogates: the one they agree on, in a running mean, since each sees another crop.
        nearest = targets[self.nearest]
        self.affinity += 0.1 * (embedding @ targets.T - self.affinity) / len(self.faces)
        return (away - nearest)[None]


def _vector_jacobian(outputs: Tensor, inputs: Tensor, cotangents: Tensor) -> Tensor:
    """(K, *inputs) products of K cotangents (K, *outputs) with the Jacobian, from one forward pass."""
    if len(cotangents) == 1:
        return torch.autograd.grad(outputs, inputs, cotangents[0])[0][None]
    return torch.autograd.grad(outputs, inputs, cotangents, is_grads_batched=True)[0]


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Stack (C, H, W) tensors of different sizes, zeros below and to the right."""
    height, width = (max(tensor.shape[axis] for tensor in tensors) for axis in (1, 2))
    whole = tensors[0].new_zeros(len(tensors), tensors[0].shape[0], height, width)
    for row, tensor in enumerate(tensors):
        whole[row, :, : tensor.shape[1], : tensor.shape[2]] = tensor
    return whole
