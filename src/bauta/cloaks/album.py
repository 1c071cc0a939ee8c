"""What is remembered of photos that were protected before in the same run; see `bauta.cloaks.identity`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LONGEST = 500
"""Faces that an `Album` remembers."""
SAME_PHOTO = 0.9999
"""Cosine from which on two faces before protection are one and the same picture."""


@dataclass
class Album:
    """What protected photos of one run look like to surrogates, so that later ones are not linked to them.

    These are biometric data: they are kept in memory only, and go with the run.

    Attributes:
        sources: By surrogate, embeddings (M, dim) of the faces before protection.
        protected: By surrogate, embeddings (M, dim) of the same faces as protected.
    """

    sources: dict[str, Tensor] = field(default_factory=dict)
    protected: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, sources: Tensor, protected: Tensor) -> None:
        """Remember faces, as one surrogate sees them; the last `LONGEST` are kept.

        A photo that is protected anew takes the place of itself.
        """
        import torch

        for kept in (self.sources, self.protected):
            kept.setdefault(name, sources[:0])
        fresh = ~(self.sources[name] @ sources.T >= SAME_PHOTO).any(1)
        for kept, new in ((self.sources, sources), (self.protected, protected)):
            kept[name] = torch.cat([kept[name][fresh], new.detach()])[-LONGEST:]
