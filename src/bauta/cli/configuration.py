"""Defaults of options from a file, ``bauta.toml``, and from the environment.

A table of the file is a command, and its keys are options::

    [protect]
    strength = "high"
    fallback = "blur"
    reference = ["me/1.jpg", "me/2.jpg"]

    [protect.settings]          # of the method, as with --set
    iterations = 90

    [recognizers.calibrate]
    exclude = "people.txt"

``BAUTA_PROTECT_STRENGTH=high`` says the same from the environment. What is typed wins over the environment, and that
over the file: the one that ``--config FILE`` or ``BAUTA_CONFIG`` names, otherwise ``bauta.toml`` in the user's
configuration folder. One that merely lies in the current folder does not count: a folder of photos may come from
somebody else, and its file could weaken what protects them.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bauta.errors import UsageError

NAME = "bauta.toml"
_SETTINGS = "settings"


def user_file() -> Path:
    """Where the user's own file belongs."""
    import platformdirs

    return Path(platformdirs.user_config_dir("bauta", appauthor=False)) / NAME


def file(chosen: Path | None = None) -> Path | None:
    """The file that counts; None when there is none.

    Args:
        chosen: What ``--config`` names.
    """
    if chosen is not None:
        return chosen
    return path if (path := user_file()).is_file() else None


def defaults(group: Any, chosen: Path | None, environment: Mapping[str, str]) -> dict[str, Any]:
    """Defaults of every command below a group, as Typer's contexts take them.

    Raises:
        UsageError: when the file cannot be read, or it or the environment names an option that there is not.
    """
    found: dict[str, Any] = {}
    known: set[str] = set()
    beginnings: set[str] = set()
    if (path := file(chosen)) is not None:
        _merge(found, _checked(group, _read(path), path, []))
    for words, command in _commands(group):
        beginnings.add(_variable(*words, ""))
        for parameter in _parameters(command):
            name = _variable(*words, _spellings(parameter)[0])
            known.add(name)
            if value := environment.get(name):
                several = value.split(os.pathsep) if _repeated(parameter) else value
                _merge(found, _nested(words, {parameter.name: several}))
    for name in sorted(set(environment) - known):
        if name.startswith(tuple(beginnings)):
            near = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {near[0]}?" if near else "Options are named as `bauta COMMAND --help` does."
            raise UsageError(f"The environment variable {name} names an option that there is not.", hint=hint)
    return found


def _variable(*words: str) -> str:
    return "_".join(("bauta", *words)).replace("-", "_").upper()


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}.", hint="Check the name given to --config."
        ) from error
    except ValueError as error:
        raise UsageError(
            f"{path} is not TOML: {error}.", hint='Write options as [protect] and strength = "high".'
        ) from error


def _checked(group: Any, table: Mapping[str, Any], path: Path, words: Sequence[str]) -> dict[str, Any]:
    """The table of a group of commands, with names as parameters have them."""
    found = {}
    for name, inner in table.items():
        command = group.commands.get(name)
        if command is None or not isinstance(inner, dict):
            raise _unknown(path, "command", [*words, name], group.commands)
        deeper = [*words, name]
        if hasattr(command, "commands"):
            found[name] = _checked(command, inner, path, deeper)
        else:
            found[name] = _options(command, inner, path, deeper)
    return found


def _options(command: Any, table: Mapping[str, Any], path: Path, words: Sequence[str]) -> dict[str, Any]:
    known = {option: parameter for parameter in _parameters(command) for option in _spellings(parameter)}
    found: dict[str, Any] = {}
    for name, value in table.items():
        if name == _SETTINGS and isinstance(value, dict) and hasattr(command, "of_method"):
            found[command.settings] = [f"{key}={json.dumps(one)}" for key, one in value.items()]
            continue
        parameter = known.get(name.replace("_", "-"))
        if parameter is None or isinstance(value, dict):
            raise _unknown(path, "option", [*words, name], known)
        found[parameter.name] = [value] if _repeated(parameter) and not isinstance(value, list) else value
    return found


def _parameters(command: Any) -> list[Any]:
    return [one for one in command.params if one.param_type_name == "option" and one.name != "help"]


def _spellings(parameter: Any) -> list[str]:
    return [option.lstrip("-") for option in parameter.opts if option.startswith("--")]


def _repeated(parameter: Any) -> bool:
    return bool(parameter.multiple)


def _unknown(path: Path, what: str, words: Sequence[str], known: Mapping[str, Any]) -> UsageError:
    near = difflib.get_close_matches(words[-1].replace("_", "-"), known, 1)
    hint = f"Did you mean {near[0]}?" if near else f"There is: {', '.join(sorted(known))}."
    return UsageError(f"{path} names the {what} {'.'.join(words)}, which there is not.", hint=hint)


def _commands(group: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, *words, name)
        else:
            yield (*words, name), command


def _nested(words: Sequence[str], values: dict[str, Any]) -> dict[str, Any]:
    for word in reversed(words):
        values = {word: values}
    return values


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            _merge(into.setdefault(name, {}), value)
        else:
            into[name] = value
