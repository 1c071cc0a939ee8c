"""``bauta web``: the photo side in a browser page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bauta.cli.console import show_error
from bauta.errors import missing_extra


def web(
    paths: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Argument(
            help="Photos or folders to begin with; results can then be saved beside them.", show_default=False
        ),
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Begin with a portrait in the public domain.")] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1.", show_default="one that is free")
    ] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only.")] = False,
    stay: Annotated[
        bool,
        typer.Option("--stay", help="Go on when the page is closed; by default the program ends two minutes later."),
    ] = False,
) -> None:
    """Protect photos in a browser page. Everything happens on this machine; nothing is sent anywhere."""
    try:
        from bauta.web.serve import GRACE, open_browser, running, serve
    except ModuleNotFoundError as error:
        if (error.name or "") in ("starlette", "uvicorn"):
            raise missing_extra("starlette", "uvicorn", what="The page") from error
        raise
    from bauta.cloaking.portrait import portrait
    from bauta.photo import find_photos

    photos: tuple[Path, ...] = ()
    if paths:
        found = find_photos(paths)
        for problem in found.problems:
            show_error(problem.message, problem.hint)
        photos = tuple(found.photos)
    held = [("portrait.jpg", portrait())] if demo else []
    with running(photos, held=held, port=port, grace=None if stay else GRACE) as run:
        print(f"Open {run.address}", flush=True)
        print(
            "Photos stay on this machine. Close the page or press Ctrl-C to end; results you did not save are removed."
        )
        if not no_browser:
            open_browser(run.address)
        serve(run)
    print("Ended; everything that the page held is removed.")
