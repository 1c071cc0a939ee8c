"""A masking and the network that reads it, as who protects a face and who compares one meet them."""

from __future__ import annotations

import torch
from torch import Tensor

from bauta.templates.base import SIDE
from bauta.templates.masked.locally_connected import LocallyConnected
from bauta.templates.masked.masking import Masking
from bauta.templates.masked.network import MaskedNetwork


class MaskedReader:
    """See `bauta.templates.masked.masking.Reader`.

    Args:
        network: It is used as it is: whoever changes its weights changes the answers.
        masking: Its mask and the stem shall not change.
    """

    def __init__(self, network: MaskedNetwork, masking: Masking) -> None:
        self.network, self.masking = network, masking
        self._differences: LocallyConnected | None = None

    def look(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """See `Reader.look`: mask and stem, or both as one map, to rounding and several times as fast."""
        if not self.masking.near:
            return self.unmask(self.masking.single(images, generator))
        if self._differences is None:
            self._differences = LocallyConnected.of(
                lambda faces: self.network.stem.differentiate(self.masking.single(faces, generator)), (3, SIDE, SIDE)
            )
        return self.network.stem.integrate(self._differences(images))

    def unmask(self, values: Tensor) -> Tensor:
        """See `Reader.unmask`."""
        return self.network.unmask(values)

    def recognise(self, images: Tensor) -> Tensor:
        """See `Reader.recognise`."""
        return self.network.recognise(images)

    def read(self, images: Tensor) -> Tensor:
        """See `Reader.read`."""
        return self.network.read(images)
