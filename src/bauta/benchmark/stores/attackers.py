"""Which attacker of a recipe does what."""

from __future__ import annotations

from bauta.benchmark.stores import attacks, closed_form, key_attacks
from bauta.benchmark.stores.attacks import Access, Outcome
from bauta.benchmark.stores.recipe import Attack


def carry_out(attack: Attack, access: Access) -> Outcome:
    """Fit an attacker, and let it loose on what was stolen.

    Raises:
        UsageError: when its options make no sense, or the row is none that it can attack.
        NumericalFailure: when a loss is not a number, or a system cannot be solved.
    """
    if attack.kind in ("kernel", "kernel-student"):
        return closed_form.solve(attack, access)
    if attack.kind in ("known-pairs", "store-alone", "invariants"):
        return key_attacks.carry_out(attack, access)
    return attacks.carry_out(attack, access)
