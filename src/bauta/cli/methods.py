"""``bauta methods NAME``: all there is to know of one method."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from bauta.cli.console import show_facts, show_table
from bauta.settings import Option, Settings


def show_method(name: str, as_json: bool) -> None:
    """Its card, what it needs and is for, and its options with ranges and defaults."""
    from bauta.cloaks.base import FitsPerson, Reads, Restores
    from bauta.registry import load_method

    method = load_method(name)
    card = method.card
    config = getattr(method, "Config", None)
    options = config.options() if isinstance(config, type) and issubclass(config, Settings) else []
    able = [
        verb
        for verb, can in (("fit", FitsPerson), ("read", Reads), ("restore", Restores))
        if card.kind == "cloak" and issubclass(method, can)
    ]
    facts: dict[str, Any] = {
        "needs": sorted(getattr(method, "needs", ())),
        "takes": sorted(getattr(method, "takes", ())),
        "aims": list(getattr(method, "aims", ())),
        "verbs": able,
        "presets": list(getattr(config, "presets", ())),
    }
    if as_json:
        listed = [
            {
                "name": one.name, "option": f"--{one.flag}", "default": one.default, "allowed": one.allowed,
                "help": one.help,
            }
            for one in options
        ]  # fmt: skip
        print(json.dumps(asdict(card) | facts | {"options": listed}, indent=2, default=list))
        return
    show_facts(
        [
            ("Method", card.called),
            ("Kind", f"{card.kind}, for comparison" if card.reference else card.kind),
            ("Does", card.summary),
            ("From", card.paper),
            *((name.capitalize(), ", ".join(values)) for name, values in facts.items() if values),
        ]
    )
    if options:
        print()
        show_table(("OPTION", "DEFAULT", "ALLOWED", "WHAT IT IS"), [_row(one) for one in options])


def _row(option: Option) -> tuple[str, str, str, str]:
    default = "none" if option.default is None else str(option.default)
    return f"--{option.flag}", default, option.allowed, option.help.replace("`", "")
