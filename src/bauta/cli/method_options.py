"""Options of a command that are made from the settings of the method it runs.

A field ``sigma: Annotated[float, Range(above=0, to=50)] = 4.0`` of a cloak's Config becomes ``--sigma`` of
``bauta protect --method NAME``, with its help, range and default; `bauta.settings.Flag` gives it another name. Which
options there are is known only once the method is: the command is built anew for each command line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Optional, TypeVar, get_origin

import typer
from typer.core import TyperCommand
from typer.exceptions import TyperException

from bauta.cli.values import listed, setting_pairs
from bauta.errors import BautaError, UsageError
from bauta.settings import Option

F = TypeVar("F", bound=Callable[..., int])

_MARK = "setting_of_the_method_"  # of parameters, so that a field may be called as an option of ours


Asked = Callable[[Sequence[str], Mapping[str, Any]], str | None]


def with_method_options(app: typer.Typer, asked: Asked, **declared: Any) -> Any:
    """Register a function as a command that also takes the options of a method.

    Args:
        app: Where.
        asked: From the command line, and the defaults of its options, to the method that is meant; None while that is
            not known.
        declared: For `typer.Typer.command`.

    The function has a parameter ``options``, which gets what was chosen, by name of the field.
    """

    def register(function: F) -> F:
        class MethodCommand(TyperCommand):
            settings = f"{_MARK}set"  # the parameter that takes any setting of a method by its name

            def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
                method = asked(args, (getattr(parent, "default_map", None) or {}).get(info_name) or {})
                command = _command(function, method, declared)
                try:
                    return command.make_context(info_name, args, parent, **extra)
                except TyperException as error:
                    flag = getattr(error, "option_name", None)
                    if method is None or flag is None:
                        raise
                    raise _another_methods(method, flag) or error from error

            def of_method(self, method: str | None = None) -> Any:
                """The command with the options of a method; without one, of that which an empty command line means."""
                return _command(function, method or asked([], {}), declared)

        app.command(cls=MethodCommand, **declared)(_typed(function, []))
        return function

    return register


def _command(function: F, method: str | None, declared: dict[str, Any]) -> Any:
    """The command for one method."""
    inner = typer.Typer(add_completion=False)
    inner.command(**declared)(_typed(function, [] if method is None else _parameters(method, function)))
    return typer.main.get_command(inner)


def _typed(function: F, extra: Sequence[inspect.Parameter]) -> Callable[..., int]:
    """The function with further parameters in its signature, which it gets as ``options``."""
    own = [one for one in inspect.signature(function, eval_str=True).parameters.values() if one.name != "options"]

    def call(**given: Any) -> int:
        names = [one.name for one in extra if one.name in given]
        chosen = {name.removeprefix(_MARK): value for name in names if (value := given.pop(name)) is not None}
        pairs = chosen.pop("set", [])
        options = {name: listed(value) if isinstance(value, _ListText) else value for name, value in chosen.items()}
        return function(**given, options=options | setting_pairs(pairs))

    call.__name__, call.__doc__, call.__module__ = function.__name__, function.__doc__, function.__module__
    everything = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own, *extra)]
    call.__signature__ = inspect.Signature(everything)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in everything}
    return call


class _ListText(str):
    """What is typed for a list, such as 0,0.1."""


def _parameters(method: str, function: F) -> list[inspect.Parameter]:
    from bauta.cloaks.base import load_cloak

    config = load_cloak(method).Config
    panel = f"Settings of {method}"
    taken = {one.replace("_", "-") for one in inspect.signature(function).parameters} | {"set", "preset", "help"}
    made = []
    if config.presets:
        help_ = "All settings at once: Bauta's own, or published ones; --strength does not change those."
        hint = Literal[("default", *config.presets)]  # type: ignore[valid-type]
        made.append(_parameter("preset", hint, ["--preset"], help_, "default", panel))
    made += [
        _parameter(option.name, *_declared(option), panel) for option in config.options() if option.flag not in taken
    ]
    texts = typer.Option(
        "--set", metavar="NAME=VALUE", help="Any setting by its name. May be repeated.", rich_help_panel=panel
    )
    several = Annotated[Optional[list[str]], texts]  # noqa: UP045
    made.append(inspect.Parameter(f"{_MARK}set", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=several))
    return made


def _declared(option: Option) -> tuple[Any, list[str], str, str]:
    """Type, names, help and shown default of one field."""
    sentence = option.help.partition(". ")[0].rstrip(".")
    help_ = f"{sentence}; {option.allowed}." if option.type in (int, float) else f"{sentence}."
    default = "none" if option.default is None else str(option.default)
    if option.type is bool:
        return bool, [f"--{option.flag}/--no-{option.flag}"], help_, default
    if option.type in (int, float, str) or get_origin(option.type) is Literal:
        return option.type, [f"--{option.flag}"], help_, default
    shown = ",".join(map(str, option.default)) if isinstance(option.default, tuple) else default
    return _ListText, [f"--{option.flag}"], f"{sentence}; {option.allowed}.", shown


def _parameter(name: str, hint: Any, flags: list[str], help_: str, default: str, panel: str) -> inspect.Parameter:
    texts = help_.replace("`", "").replace("[", "\\[")  # which would be markup
    parser = _ListText if hint is _ListText else None
    metavar = "LIST" if hint is _ListText else None
    option = typer.Option(
        *flags, help=texts, show_default=default, rich_help_panel=panel, parser=parser, metavar=metavar
    )
    annotation = Annotated[Optional[hint], option]  # noqa: UP045
    return inspect.Parameter(f"{_MARK}{name}", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _another_methods(method: str, flag: str) -> UsageError | None:
    """What to say of an option that the method does not have; None when no method has it."""
    from bauta.cloaks.base import load_cloak
    from bauta.registry import list_methods

    owners = []
    for card in list_methods(kind="cloak"):
        try:
            config = load_cloak(card.name).Config
        except BautaError:  # of another package, and told of elsewhere
            continue
        names = [f"--{option.flag}" for option in config.options()] + (["--preset"] if config.presets else [])
        if flag.replace("--no-", "--", 1) in names or flag in names:
            owners.append(card.name)
    if not owners:
        return None
    return UsageError(
        f"{method} has no option {flag}; {', '.join(owners)} {'has' if len(owners) == 1 else 'have'} it.",
        hint=f"`bauta methods {method}` shows what {method} can be told.",
    )


def named_by(option: str, default: str) -> Asked:
    """Finds the method that a command line names by an option, the last one that it gives."""

    def asked(arguments: Sequence[str], defaults: Mapping[str, Any]) -> str | None:
        found = str(defaults.get(option.lstrip("-"), default))
        for place, text in enumerate(arguments):
            if text == "--":
                break
            if text == option and place + 1 < len(arguments):
                found = arguments[place + 1]
            elif text.startswith(f"{option}="):
                found = text.partition("=")[2]
        return found

    return asked


def named_first(arguments: Sequence[str], defaults: Mapping[str, Any]) -> str | None:
    """Finds the method that a command line begins with."""
    return arguments[0] if arguments and not arguments[0].startswith("-") else None
