"""What the command line shows: errors and progress on stderr, results on stdout."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import TaskID

    from bauta.cloaking.outcomes import Outcome
    from bauta.cloaking.report import Report


def clean(text: object) -> str:
    """Text for a terminal: a file name cannot smuggle escape sequences or undecodable bytes in."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in str(text))


def show_error(message: str, hint: str = "") -> None:
    """One line for what is wrong, one for what to do next."""
    print(f"error: {clean(message)}", file=sys.stderr)
    if hint:
        print(f"hint: {clean(hint)}", file=sys.stderr)


def show_warning(message: str) -> None:
    """One line for what was passed over while the rest goes on."""
    print(f"warning: {clean(message)}", file=sys.stderr)


def show_note(message: str) -> None:
    """One line on stderr for what is good to know, and nothing is wrong with."""
    print(f"note: {clean(message)}", file=sys.stderr)


def show_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns on stdout, readable by people and by `cut` and `awk` alike."""
    lines = [list(header), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def show_facts(facts: Sequence[tuple[str, object]]) -> None:
    """Names and values on stdout, a line each."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        print(f"{clean(name).ljust(width)}  {clean(value)}".rstrip())


def show_outcomes(outcomes: Sequence[Outcome], directory: Path, *, verbose: bool = False) -> None:
    """A short table of what became of the photos, or of each of their faces, and one line that sums it up."""
    from bauta.judging.words import CHIPS

    made, kind = [outcome for outcome in outcomes if outcome.verdict is not None], _kind(outcomes)
    if made:
        show_table(
            (kind.upper(), "VERDICT", "FACES", "STILL MATCH", "MARGIN", "NOTICED", "SECONDS"),
            [
                (
                    str(outcome.output.relative_to(directory)) if outcome.output else "",
                    CHIPS[outcome.verdict] if outcome.verdict else "",
                    str(outcome.faces),
                    f"{outcome.matching} of {outcome.judges} judges",
                    margin(outcome.margin),
                    _noticed(outcome),
                    "done before" if outcome.skipped else f"{outcome.seconds:.1f}",
                )
                for outcome in made
            ],
        )
        print()
        if verbose:
            show_table(
                (kind.upper(), "FACE", "WHAT WAS DONE", "VERDICT", "MARGIN"),
                [
                    (
                        outcome.source.name,
                        face.name,
                        face.treatment,
                        CHIPS[face.verdict] if face.verdict else "",
                        margin(face.margin),
                    )
                    for outcome in made
                    for face in outcome.per_face
                ],
            )
            print()
        if len(made) == 1 or verbose:
            for outcome in made:
                print(clean(outcome.message if len(made) == 1 else f"{outcome.source}: {outcome.message}"))
                show_notes(outcome.warnings)
        elif noted := sum(bool(outcome.warnings) for outcome in made):
            print(f"{noted} of them with notes on what may undo the protection: see the reports, or --json.")
    if removed := sum((Counter(outcome.removed) for outcome in made), Counter()):
        print(f"Left out of the metadata: {', '.join(f'{kind} ({count})' for kind, count in removed.items())}.")
    where = f" Output in {clean(directory)}." if made else ""
    print(f"{_counts(outcomes)}.{where}")
    if again := sum(outcome.judged_again for outcome in made):
        print(f"{again} of them {'was' if again == 1 else 'were'} protected before and only judged again.")
    if any(outcome.verdict in ("weak", "partial") for outcome in made):
        aside = clean(directory / "weak")
        print(f"{kind.capitalize()}s that are weak or partial are set aside in {aside}: do not share those.")
    if any(outcome.report for outcome in made):
        reports = clean(directory / "reports")
        print(f"Reports, in {reports}, show the unprotected {kind}s: share the protected {kind}s only.")


def show_report(report: Report) -> None:
    """The comparisons of the saved file, the verdict and the notes, on stdout."""
    rows = [
        (
            str(number),
            row.judge + (" (attacked)" if row.attacked else ""),
            row.against,
            "" if row.before is None else f"{row.before:.2f}",
            f"{row.after:.2f}",
            "" if row.limit is None else f"{row.limit:.2f}",
            margin(row.margin),
            "not calibrated"
            if row.limit is None
            else "no match"
            if row.matches_at is None
            else f"MATCH at FMR {row.matches_at:g}",
        )
        for number, face in enumerate(report.faces, 1)
        for row in face.verification.comparisons
        if row.condition == "saved"
    ]
    show_table(("FACE", "JUDGE", "AGAINST", "BEFORE", "AFTER", "THRESHOLD", "MARGIN", "DECISION"), rows)
    print(f"\n{report.verdict.capitalize()}: {clean(report.summary)}")
    show_notes(report.warnings)


def margin(value: float | None) -> str:
    """By how much a face is below a threshold, with its sign; a minus is a match.

    >>> margin(0.125), margin(-0.5), margin(-0.004), margin(None)
    ('+0.12', '-0.50', '-0.004', '')
    """
    from bauta.judging.words import number

    return "" if value is None else f"{'' if value < 0 else '+'}{number(value)}"


def show_notes(warnings: Sequence[str], *, file: TextIO | None = None) -> None:
    """What a verdict alone does not tell, a line each, on stdout unless another stream is given."""
    for warning in warnings:
        print(f"Note: {clean(warning)}", file=file)


def _noticed(outcome: Outcome) -> str:
    """How much of the edits a viewer sees; of clips that is not measured."""
    from bauta.clips.clip import is_clip_name

    if outcome.seen is not None or outcome.psnr is not None:
        return outcome.seen or f"{outcome.psnr:.1f} dB"
    return "-" if is_clip_name(outcome.source.name) else "same"


def _counts(outcomes: Sequence[Outcome]) -> str:
    from bauta.judging.findings import VERDICTS

    kinds: list[tuple[int, str]] = [
        (sum(outcome.verdict == verdict for outcome in outcomes), verdict) for verdict in VERDICTS
    ]
    kinds.append((sum(outcome.exit_code == 3 for outcome in outcomes), "without a face to protect"))
    kinds.append((sum(outcome.verdict is None and outcome.exit_code != 3 for outcome in outcomes), "failed"))
    total = len(outcomes)
    parts = ", ".join(f"{count} {kind}" for count, kind in kinds if count)
    return f"{total} {_kind(outcomes)}{'' if total == 1 else 's'}: {parts}"


def _kind(outcomes: Sequence[Outcome]) -> str:
    """What the files are called."""
    from bauta.clips.clip import is_clip_name

    kinds = {is_clip_name(outcome.source.name) for outcome in outcomes}
    return "file" if len(kinds) > 1 else "clip" if kinds == {True} else "photo"


LINES_EVERY = 10.0
"""Seconds between lines of progress where there is no terminal to draw on."""


class ProgressBar:
    """Progress with the time that is left, on stderr.

    Where that is not a terminal, it is a line every ten seconds at most, and one for each of several photos.

    Args:
        photos: How many there are.
        quiet: Whether to show nothing but errors.
    """

    def __init__(self, photos: int, *, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._photos = photos
        self._finished = 0
        self._lines = not quiet and not console.is_terminal
        self._said = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )
        self._whole: TaskID | None = None
        self._stage: TaskID | None = None
        self._shown = 0.0

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        if self._photos > 1:
            self._whole = self._progress.add_task("photos", total=self._photos)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, name: str, done: int, total: int) -> None:
        """Show how far the present photo is."""
        if self._lines:
            if time.monotonic() - self._said >= LINES_EVERY:
                self._say(f"{name}, {done} of {total}")
            return
        if self._stage is None:
            self._stage = self._progress.add_task(name, total=total)
        now = time.monotonic()
        if 0 < done < total and now - self._shown < 0.1:
            return
        self._shown = now
        if done == 0:
            self._progress.reset(self._stage, description=name, total=total)
        self._progress.update(self._stage, description=name, completed=done, total=total)

    def finished(self, outcome: Outcome) -> None:
        """Count a photo, and say at once what went wrong with it."""
        self._finished += 1
        if self._whole is not None:
            self._progress.advance(self._whole)
        if outcome.verdict is None:
            self._progress.stop()
            show_error(outcome.message, outcome.hint)
            self._progress.start()
        elif self._lines and self._photos > 1:
            self._say(f"{outcome.source.name}: {outcome.verdict}")

    def _say(self, what: str) -> None:
        at = f"{min(self._finished, self._photos)} of {self._photos} photos done, " if self._photos > 1 else ""
        print(f"{at}{clean(what)}", file=sys.stderr, flush=True)
        self._said = time.monotonic()
