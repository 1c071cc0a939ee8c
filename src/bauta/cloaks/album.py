"""What is remembered of photos that were protected before in the same run; see `bauta.cloaks.identity`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LONGEST = 500
"""Faces that an `Album` remembers."""


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
        """Remember faces, as one surrogate sees them; the last `LONGEST` are kept."""
        import torch

        for kept, new in ((self.sources, sources), (self.protected, protected)):
            kept[name] = torch.cat([kept.get(name, new[:0]), new.detach()])[-LONGEST:]
