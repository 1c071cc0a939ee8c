"""Attackers on keys that turn stored numbers: what is recovered of a signed permutation or a rotation, and from what.

`bauta.templates.advface.keys` maps all rows of a store alike: one signed permutation, or one orthogonal matrix. The
thief has the software and the store, not the key. From a few photos of which he knows the rows (`from_pairs`,
`procrustes`), or from the store alone and faces of his own (`from_store`), he recovers the map; sorted magnitudes do
not depend on it at all (`likeness_of_invariants`). Our design throughout, but for the Procrustes solution
(Schönemann 1966).

All numbers are those that the key turns: after standardising, before the map (*plain*), or after it (*stored*).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bauta.errors import UsageError

BLOCK = 512  # stored positions compared at once: more take longer to find memory for than to compare
CANDIDATES = 8  # plain positions kept for each of them
QUANTILES = 32


class Recovered(Protocol):
    """A map that an attacker believes to be the key's."""

    def undo(self, stored: Tensor) -> Tensor:
        """Plain numbers (N, K) behind stored ones (N, K)."""


@dataclass(frozen=True, eq=False)
class Positions:
    """A signed permutation: stored number ``j`` is ``sign[j]`` times plain number ``source[j]``.

    Attributes:
        source: (K,) int64, a permutation.
        sign: (K,) float32, 1 or -1.
    """

    source: Tensor
    sign: Tensor

    def undo(self, stored: Tensor) -> Tensor:
        """Plain numbers (N, K) behind stored ones (N, K)."""
        plain = torch.empty_like(stored)
        plain[:, self.source] = stored * self.sign
        return plain

    def right(self, true: Positions) -> Tensor:
        """(K,) float32, 1 where source and sign are those of the true map."""
        return ((self.source == true.source) & (self.sign == true.sign)).float()


@dataclass(frozen=True, eq=False)
class Rotation:
    """An orthogonal map: ``stored = plain @ matrix.T``.

    Attributes:
        matrix: (K, K) float32.
    """

    matrix: Tensor

    def undo(self, stored: Tensor) -> Tensor:
        """Plain numbers (N, K) behind stored ones (N, K)."""
        return stored @ self.matrix


@dataclass(frozen=True, eq=False)
class _Marks:
    """What tells positions apart: (K, E) that a change of sign keeps, and (K, O) that it turns over."""

    even: Tensor
    odd: Tensor


def from_pairs(plain: Tensor, stored: Tensor) -> Positions:
    """The signed permutation from photos whose stored rows are known.

    The numbers of a position over all pairs tell it from the others, up to its sign. One pair gives one magnitude for
    each position: both sides are sorted. From two on each stored position goes to the plain one that it is nearest to,
    one to one, the surest first.

    Args:
        plain: (n, K) what the attacker computes from his photos.
        stored: (n, K) the rows he knows to be theirs.

    Raises:
        UsageError: when they do not go together.
    """
    plain, stored = _pairs(plain, stored)
    if len(plain) == 1:
        source = torch.empty(plain.shape[1], dtype=torch.int64)
        source[stored[0].abs().argsort(stable=True)] = plain[0].abs().argsort(stable=True)
        return Positions(source, _signs(plain[0, source] * stored[0]))
    none = plain.new_zeros(plain.shape[1], 0)
    return _matched(_Marks(none, plain.T.contiguous()), _Marks(none, stored.T.contiguous()))[0]


def procrustes(plain: Tensor, stored: Tensor) -> Rotation:
    """The orthogonal matrix that carries known photos nearest to their rows (Schönemann 1966).

    Of n photos it knows n directions; the others are left as they come.

    Args:
        plain: (n, K) what the attacker computes from his photos.
        stored: (n, K) the rows he knows to be theirs.

    Raises:
        UsageError: when they do not go together.
    """
    plain, stored = _pairs(plain, stored)
    left, _, right = torch.linalg.svd(stored.T.double() @ plain.double())
    return Rotation((left @ right).float())


def from_store(plain: Tensor, stored: Tensor, *, rounds: int = 6, anchors: int = 1024) -> Positions:
    """The signed permutation from a stolen store alone: no photo of anybody in it is known.

    Positions are first matched by the quantiles of their numbers over all faces. Then, in rounds, those that were
    matched most surely are anchors: a position is known by its correlations with them, on either side.

    Args:
        plain: (m, K) of faces of the attacker's own, whoever they show.
        stored: (n, K) stolen rows.
        rounds: Of correlation, after the first match.
        anchors: Positions that others are correlated with, in the last round; fewer before.

    Raises:
        UsageError: when they do not go together, or a side has fewer than 8 rows.
    """
    if plain.dim() != 2 or stored.dim() != 2 or plain.shape[1] != stored.shape[1] or min(len(plain), len(stored)) < 8:
        raise UsageError(
            f"Stores of shapes {list(plain.shape)} and {list(stored.shape)} tell of no key.",
            hint="Give 8 rows on each side at least, of the same numbers.",
        )
    plain, stored = plain.float(), stored.float()
    noise = (1 / len(plain) + 1 / len(stored)) ** 0.5  # of a difference of two means, or correlations
    sides = _marginals(plain, noise), _marginals(stored, noise)
    found, margin = _matched(*sides)
    one, other = _standard(plain), _standard(stored)
    count = plain.shape[1]
    for turn in range(rounds):
        used = min(count, max(32, anchors * (turn + 1) // rounds))
        sure = margin.argsort(descending=True)[:used]
        first = one.T @ one[:, found.source[sure]] / noise
        second = other.T @ (other[:, sure] * found.sign[sure]) / noise
        marks = [
            _Marks(side.even, torch.cat([side.odd, links], 1))
            for side, links in zip(sides, (first, second), strict=True)
        ]
        found, margin = _matched(*marks)
    return found


def invariants(values: Tensor) -> Tensor:
    """(N, K) sorted magnitudes of rows (N, ...), in float32: no signed permutation changes them."""
    return values.flatten(1).float().abs().sort(1).values


def likeness_of_invariants(photos: Tensor, store: Tensor) -> Tensor:
    """(M, N) cosines of the `invariants` of M photos and N stored rows, each less the mean of the store's: what all
    rows have in common tells nobody apart."""
    mean = invariants(store).mean(0)
    one, other = (torch.nn.functional.normalize(invariants(side) - mean, dim=1) for side in (photos, store))
    return one @ other.T


def _pairs(plain: Tensor, stored: Tensor) -> tuple[Tensor, Tensor]:
    if plain.shape != stored.shape or plain.dim() != 2 or not len(plain):
        raise UsageError(
            f"Photos {list(plain.shape)} and rows {list(stored.shape)} make no pairs.",
            hint="Give a row for each photo.",
        )
    return plain.float(), stored.float()


def _signs(values: Tensor) -> Tensor:
    return torch.where(values < 0, -1.0, 1.0)


def _standard(values: Tensor) -> Tensor:
    """Columns of mean 0 and length 1, so that their products are correlations."""
    centred = values - values.mean(0)
    standard: Tensor = centred / torch.linalg.vector_norm(centred, dim=0).clamp_min(1e-12)
    return standard


def _marginals(values: Tensor, noise: float) -> _Marks:
    """Quantiles of each position, parted into what a sign keeps and what it turns over, in units of their noise."""
    places = (torch.arange(QUANTILES) + 0.5) / QUANTILES
    rows = (places * (len(values) - 1)).round().long()
    found = torch.cat([part.sort(0).values[rows].T for part in torch.split(values, BLOCK, dim=1)])
    mirrored = found.flip(1)
    half = QUANTILES // 2
    return _Marks((found - mirrored)[:, half:] / noise, (found + mirrored)[:, half:] / noise)


def _matched(plain: _Marks, stored: _Marks) -> tuple[Positions, Tensor]:
    """Each stored position with the plain one that is most like it, one to one, and how sure that is, (K,)."""
    count = len(plain.odd)
    near, error, sign = _nearest(plain, stored)
    margin = error[:, 1] - error[:, 0] if error.shape[1] > 1 else -error[:, 0]
    source, signs = _assigned(near.numpy(), error.numpy(), sign.numpy(), count)
    # A position whose own choice was taken by another is not an anchor.
    margin = torch.where(torch.from_numpy(source) == near[:, 0], margin, torch.full_like(margin, -torch.inf))
    return Positions(torch.from_numpy(source), torch.from_numpy(signs)), margin


def _nearest(plain: _Marks, stored: _Marks) -> tuple[Tensor, Tensor, Tensor]:
    """For each stored position the nearest plain ones: places, squared distances and signs, (K, CANDIDATES)."""
    own = plain.even.square().sum(1) + plain.odd.square().sum(1)
    wanted = min(CANDIDATES, len(own))
    places, errors, signs = [], [], []
    for even, odd in zip(torch.split(stored.even, BLOCK), torch.split(stored.odd, BLOCK), strict=True):
        turned = odd @ plain.odd.T
        error = (even.square().sum(1) + odd.square().sum(1))[:, None] + own
        error -= 2 * turned.abs()
        if even.shape[1]:
            error -= 2 * (even @ plain.even.T)
        best = error.topk(wanted, largest=False)
        places.append(best.indices)
        errors.append(best.values)
        signs.append(_signs(turned.gather(1, best.indices)))
    return torch.cat(places), torch.cat(errors), torch.cat(signs)


def _assigned(
    near: NDArray[np.int64], error: NDArray[np.float32], sign: NDArray[np.float32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """One to one, the smallest distance first; whose candidates are all taken gets what is left over."""
    source = np.full(count, -1, np.int64)
    signs = np.ones(count, np.float32)
    taken = np.zeros(count, bool)
    width = near.shape[1]
    for edge in np.argsort(error, axis=None, kind="stable").tolist():
        place, choice = divmod(edge, width)
        wanted = near[place, choice]
        if source[place] < 0 and not taken[wanted]:
            source[place], signs[place], taken[wanted] = wanted, sign[place, choice], True
    source[source < 0] = np.flatnonzero(~taken)
    return source, signs
