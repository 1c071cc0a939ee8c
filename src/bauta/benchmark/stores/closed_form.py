"""Closed-form attackers of a template recipe: a kernel decoder of pictures, and one that links."""

from __future__ import annotations

import time

import torch

from bauta.attacks.closed_form import KernelConfig, fit_kernel
from bauta.benchmark.stores.attacks import Access, Outcome, attacker_card, build_options
from bauta.benchmark.stores.recipe import Attack
from bauta.progress import steps_of

CHUNK = 32


def solve(attack: Attack, access: Access) -> Outcome:
    """Solve for the attacker's faces, or their templates, and answer the victims' stored numbers.

    Raises:
        UsageError: when its options make no sense, or its people are too few.
        NumericalFailure: when a system cannot be solved.
    """
    config = build_options(KernelConfig, {key: one for key, one in attack.options.items() if key != "images"}, attack)
    faces, index = access.learned(attack)
    assert access.protected.values is not None
    values = access.protected.values if len(index) == len(faces) else access.protected.values[index]
    pixels = faces.pixels[index]
    if attack.kind == "kernel":
        targets = pixels
    else:
        with torch.no_grad():
            targets = torch.cat([access.protector.clean(part.float() / 255) for part in torch.split(pixels, CHUNK)])
    began = time.monotonic()
    people = [faces.subjects[place] for place in index.tolist()]
    found = fit_kernel(values, targets, people, config, steps_of(access.progress, attack.name))
    fitted = {**found.fitted, "seconds": round(time.monotonic() - began, 1)}
    ours = "Standardising, components, and the choice of kernel, width and ridge by people held out."
    card = attacker_card(attack, "pairs", ours, access, stopped="solved")
    if attack.kind == "kernel":
        return Outcome(card, found.reconstruct(access.stolen[: attack.victims]), None, fitted)
    return Outcome(card, None, found, fitted)
