"""Templates computed back from cancelable codes by a thief who has the tokens too: our attacks, one for each scheme.

Signs and indices are projected back through the token's maps, then corrected where the estimate's own code differs
from the stolen one (binary iterative hard thresholding, Jacques et al. 2013, without the sparsity). Polynomials are
solved by the steps of Levenberg and Marquardt, from the mean of other people's templates. Further records of the
same person add rows to the same system. A scheme may fall to stronger attacks than these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bauta.templates.cancelable.base import Binary, Codes, Maps, Scheme
from bauta.templates.cancelable.iom import IomGrp
from bauta.templates.cancelable.polyprotect import PolyProtect

Floats = NDArray[np.float32]

CORRECTIONS = 30
NEWTON = 20


def invert(scheme: Scheme, codes: Sequence[Codes], maps: Sequence[Maps], start: Floats) -> Floats:
    """Templates behind codes.

    Args:
        scheme: That made them.
        codes: Of each record, (N, ...) of the same N people.
        maps: Of each record, see `Scheme.maps`.
        start: (D,) mean of other people's templates, of any length.

    Returns:
        (N, D) of unit norm.
    """
    if isinstance(scheme, PolyProtect):
        return np.stack([_solve(scheme, [code[row] for code in codes], maps, start) for row in range(len(codes[0]))])
    assert isinstance(scheme, Binary)
    wanted = [_symbols(scheme, code) for code in codes]
    found = _unit(sum(_back(scheme, _signed(scheme, one), own) for one, own in zip(wanted, maps, strict=True)))
    best, most = found, _agreement(scheme, found, wanted, maps)
    for turn in range(CORRECTIONS):
        wrong: Any = 0
        for one, own in zip(wanted, maps, strict=True):
            now = _symbols(scheme, scheme.encode(scheme.project(found, own)))
            wrong = wrong + _back(scheme, _signed(scheme, one) - _signed(scheme, now), own)
        lengths = np.linalg.norm(wrong, axis=1, keepdims=True).clip(1e-9)
        found = _unit(found + wrong / lengths * np.float32(0.3 * 0.9**turn))
        share = _agreement(scheme, found, wanted, maps)
        better = share > most  # a thief sees how well an estimate explains the records, and keeps the best
        best, most = np.where(better[:, None], found, best), np.maximum(share, most)
    return best


def _symbols(scheme: Binary, codes: Codes) -> NDArray[np.uint8]:
    """(N, S) numbers below 2^planes: the reverse of `Binary.pack`."""
    content = np.ascontiguousarray(codes.astype("<u8")).view(np.uint8)
    bits = np.unpackbits(content, axis=-1, bitorder="little")
    symbols: NDArray[np.uint8] = (bits << np.arange(scheme.planes, dtype=np.uint8)[:, None]).sum(1, dtype=np.uint8)
    return symbols


def _signed(scheme: Binary, symbols: NDArray[np.uint8]) -> Floats:
    """Symbols as weights of the projections: 1 for the largest of a group and less for all others; -1 or 1 for bits."""
    if isinstance(scheme, IomGrp):
        chosen: Floats = np.eye(scheme.config.projections, dtype=np.float32)[symbols]
        return chosen.reshape(len(symbols), -1) - np.float32(1 / scheme.config.projections)
    return symbols.astype(np.float32) * np.float32(2) - np.float32(1)


def _back(scheme: Binary, weights: Floats, maps: Maps) -> Floats:
    """(N, D): weights of the projections back through the maps; the bends of a network are passed over."""
    if isinstance(scheme, IomGrp):
        return weights @ maps[0]
    for matrix in reversed(maps):
        weights = weights @ matrix.T
    return weights


def _agreement(scheme: Binary, found: Floats, wanted: Sequence[NDArray[np.uint8]], maps: Sequence[Maps]) -> Floats:
    shares = [
        (_symbols(scheme, scheme.encode(scheme.project(found, own))) == one).mean(1)
        for one, own in zip(wanted, maps, strict=True)
    ]
    mean: Floats = np.mean(shares, axis=0).astype(np.float32)
    return mean


def _solve(scheme: PolyProtect, codes: Sequence[Codes], maps: Sequence[Maps], start: Floats) -> Floats:
    wanted = np.concatenate(codes).astype(np.float64)
    size = len(start)
    found = start.astype(np.float64)
    rest, jacobian = _rest(found, wanted, maps)
    damping = 1e-2
    for _ in range(NEWTON):
        scale = damping * float(np.square(jacobian).sum()) / size
        if len(jacobian) <= size:
            step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + scale * np.eye(len(jacobian)), rest)
        else:
            step = np.linalg.solve(jacobian.T @ jacobian + scale * np.eye(size), jacobian.T @ rest)
        tried = found + step
        left, slope = _rest(tried, wanted, maps)
        if np.square(left).sum() < np.square(rest).sum():
            settled = np.square(left).sum() > 0.999 * np.square(rest).sum() or np.abs(left).max() < 1e-6
            found, rest, jacobian, damping = tried, left, slope, damping * 0.2
            if settled:
                break
        else:
            damping *= 10
    return _unit(found)


def _rest(found: NDArray[np.float64], wanted: NDArray[np.float64], maps: Sequence[Maps]) -> tuple[Any, Any]:
    """What the codes of an estimate (D,) lack, (K,), and how they change with it, (K, D)."""
    values, slopes = [], []
    for coefficients, exponents, places in maps:
        padded = np.pad(found, (0, int(places.max()) + 1 - len(found)))
        powers = padded[places] ** (exponents - 1)
        values.append((coefficients * powers * padded[places]).sum(1))
        slope = np.zeros((len(places), len(padded)))
        np.put_along_axis(slope, places, coefficients * exponents * powers, 1)
        slopes.append(slope[:, : len(found)])
    return wanted - np.concatenate(values), np.concatenate(slopes)


def _unit(values: Any) -> Floats:
    result: Floats = values / np.linalg.norm(values, axis=-1, keepdims=True).clip(1e-12)
    return result.astype(np.float32)
