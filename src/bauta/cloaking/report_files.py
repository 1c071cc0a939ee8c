"""Reports on disk: readable only by those who could see the photo, and never written over anything else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bauta.errors import OutputExists, UsageError

if TYPE_CHECKING:
    from bauta.cloaking.report import Report


def narrow(path: Path, *, like: Path) -> None:
    """Take the permissions from a file that a photo does not give: who cannot read that cannot read what shows it."""
    path.chmod(path.stat().st_mode & (0o600 | (like.stat().st_mode & 0o066)))


def write_report(report: Report, page: Path, *, like: Path | None = None) -> None:
    """Write `report.html` to `page`, and `report.json` beside it; an earlier report of that name is replaced.

    Args:
        report: What is written.
        page: A name that ends in ``.html``.
        like: The original photo, whose permissions the two files do not exceed.

    Raises:
        UsageError: when the name does not end in ``.html``.
        OutputExists: when one of the two files exists and is not a report.
        OutputError: when they cannot be written.
    """
    from bauta.files import write_atomically

    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{page} is not a name for a report.", hint="Give it the ending .html.")
    data = page.with_suffix(".json")
    taken = next((path for path in (data, page) if os.path.lexists(path)), None)
    if taken is not None and not _is_report(data):
        raise OutputExists(f"{taken} exists and is not one of Bauta's reports.", hint="Choose another name.")
    for path, text in ((data, report.to_json()), (page, report.to_html())):
        write_atomically(path, text.encode(), overwrite=True, like=like)


def _is_report(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and str(content.get("schema")).startswith("bauta.report/")
