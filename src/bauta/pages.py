"""Templates of the pages that Bauta writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jinja2


def page_template(room: str, name: str) -> jinja2.Template:
    """A template that escapes what it is given, and fails over what it is not.

    Args:
        room: Folder of the package that it lies in.
        name: Of the file; others beside it can be included.
    """
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("bauta", room),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)
