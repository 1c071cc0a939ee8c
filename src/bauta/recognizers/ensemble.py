"""Several surrogates looking at the same faces: the embeddings that every mask is optimised against.

A mask lies on the photo's own pixels, or on a view of them; each surrogate sees an aligned crop of its own template.
`Ensemble.looking_at` fixes where the faces are; what comes back embeds any pictures of them, through whatever movement
of the crop the method draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from bauta.errors import UsageError
from bauta.faces.crop_template import ARCFACE_112
from bauta.faces.crops import align, alignments
from bauta.faces.warp import compose, warp
from bauta.recognizers.surrogates import Surrogate


class Ensemble:
    """The recognisers that are attacked, in their order.

    Args:
        surrogates: Frozen and differentiable; at least one.

    Raises:
        UsageError: when there is none.
    """

    def __init__(self, surrogates: Sequence[Surrogate]) -> None:
        if not surrogates:
            raise UsageError("There is no recogniser to attack.", hint="Name at least one in --surrogates.")
        self.surrogates = tuple(surrogates)

    def __len__(self) -> int:
        return len(self.surrogates)

    def __iter__(self) -> Iterator[Surrogate]:
        return iter(self.surrogates)

    @property
    def names(self) -> tuple[str, ...]:
        """Names on the surrogates' cards."""
        return tuple(surrogate.card.name for surrogate in self.surrogates)

    def looking_at(self, landmarks: Sequence[Tensor]) -> AlignedEnsemble:
        """The ensemble in front of N faces.

        Args:
            landmarks: For each face (5, 2), in pixels of the picture it is in.

        Raises:
            UsageError: when landmarks coincide or are not finite.
        """
        return AlignedEnsemble(self, landmarks)

    def templates(self, crops: Tensor) -> list[Tensor]:
        """For each surrogate the embeddings (K, dim) of faces aligned to `ARCFACE_112`.

        Args:
            crops: (K, 3, 112, 112) in [0, 1].
        """
        points = ARCFACE_112.landmarks()
        # Warped even where the template is the same, as the views are: otherwise masks would not be those of before.
        return [surrogate(align(crops, points, surrogate.card.template)) for surrogate in self.surrogates]


class AlignedEnsemble:
    """Embeds pictures of N faces whose landmarks are known, by one surrogate at a time; see `Ensemble.looking_at`."""

    def __init__(self, ensemble: Ensemble, landmarks: Sequence[Tensor]) -> None:
        self.ensemble = ensemble
        points = torch.stack(list(landmarks)).numpy()
        self.matrices = [alignments(points, surrogate.card.template) for surrogate in ensemble]

    def __len__(self) -> int:
        return len(self.ensemble)

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of the crops that a surrogate reads: what random movements of a crop are drawn for."""
        template = self.ensemble.surrogates[index].card.template
        return template.height, template.width

    def embed(
        self,
        index: int,
        pictures: Tensor,
        *,
        movement: Tensor | None = None,
        through: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Unit-norm embeddings (M, dim) by one surrogate, differentiable in the pictures.

        Args:
            index: Of the surrogate.
            pictures: (M, 3, H, W) in [0, 1], where M is N, or a multiple of it: all faces, again and again.
            movement: (2, 3), in crop pixels, applied after the alignment; see `bauta.objectives.transports`.
            through: What happens to the crops (M, 3, height, width) before the network reads them.

        Raises:
            NumericalFailure: when the network answers with NaN or infinity.
        """
        matrices = self.matrices[index]
        if movement is not None:
            matrices = compose(movement, matrices)
        if len(pictures) != len(matrices):  # candidates of all faces, one set after the other
            matrices = matrices.repeat(len(pictures) // len(matrices), 1, 1)
        crops = warp(pictures, matrices, self.size(index))
        embeddings: Tensor = self.ensemble.surrogates[index](through(crops) if through is not None else crops)
        return embeddings

    def all(self, pictures: Tensor) -> list[Tensor]:
        """For each surrogate the embeddings of the pictures as they are; see `embed`."""
        return [self.embed(index, pictures) for index in range(len(self))]
