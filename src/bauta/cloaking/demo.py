"""The demonstration: a portrait in the public domain, protected, with every picture a person wants to see."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np

from bauta.cloaking.pipeline import Pipeline
from bauta.cloaking.portrait import portrait
from bauta.cloaking.report import Report
from bauta.cloaking.report_files import write_report
from bauta.cloaking.report_page import amplification, amplified
from bauta.cloaking.settings import ProtectSettings
from bauta.errors import OutputError, OutputExists
from bauta.files import write_atomically
from bauta.pages import as_image
from bauta.photo import read_photo
from bauta.progress import Progress


def demonstrate(directory: Path, *, progress: Progress = lambda stage, done, total: None) -> tuple[Report, list[Path]]:
    """Protect the NASA portrait that scikit-image carries and write everything there is to see.

    Args:
        directory: Where to write; files of an earlier demonstration are replaced.
        progress: Called as work advances.

    Returns:
        The report, and the files: original, protected photo, amplified mask, the three side by side,
        report.html and report.json.

    Raises:
        MissingExtra: when scikit-image, which brings the portrait, is not installed.
        OutputExists: when the folder holds files of these names that are not from an earlier demonstration.
        OutputError: when the folder cannot be written.
    """
    photo = portrait()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"Cannot write to {directory}: {error.strerror or error}.", hint="Give another folder with -o."
        ) from error
    names = ("original.jpg", "protected.jpg", "mask.png", "side_by_side.png", "report.html", "report.json")
    files = {name: directory / name for name in names}
    _refuse_strangers(files, photo)
    write_atomically(files["original.jpg"], photo, overwrite=True)
    original = read_photo(files["original.jpg"])
    report = Pipeline(ProtectSettings()).protect(original, files["protected.jpg"], overwrite=True, progress=progress)
    factor = amplification(report.original, report.saved)
    mask = amplified(report.original, report.saved, factor)
    for name, pixels in (
        ("mask.png", mask),
        ("side_by_side.png", np.concatenate([report.original, report.saved, mask], axis=1)),
    ):
        stream = io.BytesIO()
        as_image(pixels).save(stream, "PNG")
        write_atomically(files[name], stream.getvalue(), overwrite=True)
    write_report(report, files["report.html"])
    return report, list(files.values())


def _refuse_strangers(files: dict[str, Path], portrait: bytes) -> None:
    """Files of an earlier demonstration may be replaced, and nobody else's."""
    taken = next((path for path in files.values() if os.path.lexists(path)), None)
    original = files["original.jpg"]
    if taken is not None and not (original.is_file() and original.read_bytes() == portrait):
        raise OutputExists(f"{taken} is not from an earlier demonstration.", hint="Give another folder with -o.")
