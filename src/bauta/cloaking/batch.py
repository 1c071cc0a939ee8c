"""Many photos into one folder: resumable, in several processes, and one bad photo stops nothing.

What a run knows of its own products it keeps in ``DIR/.bauta``, one record for each photo: the hashes of the
source, of the product and of its reports, and a fingerprint of the settings. A photo is finished when source,
settings, product and reports are as recorded. What changed since belongs to whoever changed it and is never
replaced.

This module imports torch only while it protects, so that worker processes can set thread counts before.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import json
import multiprocessing
import os
import signal
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bauta.cloaking.records import (
    RECORDS,
    SCHEMA,
    digest_of_file,
    digest_of_path,
    fitting_name,
    read_record,
    record_path,
    remove_orphans,
    scratch_prefix,
    unchanged,
)
from bauta.errors import BautaError, OutputError, OutputExists, UsageError
from bauta.version import __version__

if TYPE_CHECKING:
    from bauta.cloaking.pipeline import Pipeline, Progress
    from bauta.cloaking.report import Report
    from bauta.cloaking.settings import ProtectSettings
    from bauta.photo import Photo

WEAK = 7
"""Exit code of a photo that a judge still recognises, or in which a face could not be given a mask."""

SERIOUSNESS = (130, 1, 2, 6, 8, 5, 4, 3, WEAK, 0)
"""Exit codes, the most serious first: what concerns the whole run before what concerns a photo, and what left
no protected photo before what left a weak one."""


@dataclass(frozen=True)
class Task:
    """One photo to protect.

    Attributes:
        source: The file.
        relative: Where its product belongs, below the output folder.
        meets: Another photo of the run has the same stem there, so that reports carry the whole file name.
    """

    source: Path
    relative: Path
    meets: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one photo.

    Attributes:
        source: The file, or the folder that could not be read.
        verdict: ``protected``, ``partial``, ``unconfirmed``, ``weak``, or None when nothing was protected.
        skipped: It was finished by an earlier run with the same settings.
        output: The protected photo.
        report: `report.html`, when one was asked for.
        exit_code: As in `bauta.errors`; 7 for weak and partial.
        message: What is wrong, or the verdict in plain words.
        hint: What to do next.
        warnings: What the verdict alone does not tell, such as that saving as JPEG undoes the protection.
        faces: Number of protected faces.
        psnr: Lowest PSNR of a face, in dB.
        matching: Number of judges that still match a face.
        judges: Number of judges asked.
        seconds: Wall time.
    """

    source: Path
    verdict: str | None = None
    skipped: bool = False
    output: Path | None = None
    report: Path | None = None
    exit_code: int = 0
    message: str = ""
    hint: str = ""
    warnings: tuple[str, ...] = ()
    faces: int = 0
    psnr: float | None = None
    matching: int = 0
    judges: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


def verdict_code(verdict: str) -> int:
    """The exit code of a photo that was protected or verified."""
    return WEAK if verdict in ("weak", "partial") else 0


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """The exit code of a run: the most serious of its photos'."""
    codes = {outcome.exit_code for outcome in outcomes}
    return next((code for code in SERIOUSNESS if code in codes), 1 if codes else 0)


def _absolute(path: Path) -> Path:
    """Without ``..``, which would lead a product out of the output folder."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps them


def plan(sources: Sequence[tuple[Path, Path]]) -> list[Task]:
    """Give every source a place below the output folder that no other source has.

    Args:
        sources: Each photo, and the folder it was found under (its own folder when it was named directly).

    Returns:
        Tasks in the same order, each photo once. A photo keeps its path below the folder it was found under;
        photos that would meet keep as much of their folders as tells them apart. Names that differ only in
        case meet, since some file systems do not tell them apart.
    """
    unique = {_absolute(source): (source, _absolute(root)) for source, root in sources}
    wholes = [whole.parts[1:] for whole in unique]
    lengths = [len(whole.relative_to(root).parts) for whole, (_, root) in unique.items()]

    def name(index: int) -> str:
        return os.path.join(*wholes[index][-lengths[index] :]).casefold()  # noqa: PTH118

    while True:
        groups: dict[str, list[int]] = {}
        for index in range(len(wholes)):
            groups.setdefault(name(index), []).append(index)
        meeting = [
            index
            for group in groups.values()
            if len({str(Path(*wholes[index])).casefold() for index in group}) > 1
            for index in group
            if lengths[index] < len(wholes[index])
        ]
        if not meeting:
            break
        for index in meeting:
            lengths[index] += 1
    places = []
    for index in range(len(wholes)):
        place = Path(*wholes[index][-lengths[index] :])
        number = groups[name(index)].index(index) + 1
        places.append(place if number == 1 else place.with_name(fitting_name(f"{place.stem}-{number}", place.suffix)))
    stems = [str(place.with_name(place.stem)).casefold() for place in places]
    # A stem can be another's whole name too: a.jpg and a.jpg.png.
    taken = Counter(label for place, stem in zip(places, stems, strict=True) for label in {stem, str(place).casefold()})
    return [
        Task(source, place, taken[stem] > 1)
        for (source, _), place, stem in zip(unique.values(), places, stems, strict=True)
    ]


@dataclass
class Workshop:
    """Protects photos one after another into one folder.

    Attributes:
        directory: The output folder; it exists.
        settings: What to do.
        reports: Whether to write `report.html` and `report.json` beside each photo.
        fingerprint: Of everything but the photo that decides the product.
        originals: Real paths of all sources, none of which may be written to.
    """

    directory: Path
    settings: ProtectSettings
    reports: bool
    fingerprint: str
    originals: frozenset[str]
    _pipeline: Pipeline | None = field(default=None, repr=False)

    @property
    def pipeline(self) -> Pipeline:
        """The recognisers, loaded once per process."""
        if self._pipeline is None:
            from bauta.cloaking.pipeline import Pipeline

            self._pipeline = Pipeline(self.settings)
        return self._pipeline

    def protect(self, task: Task, progress: Progress = lambda stage, done, total: None) -> Outcome:
        """Protect one photo; whatever goes wrong is the outcome and no exception."""
        try:
            return self._protect(task, progress)
        except BautaError as error:
            return Outcome(task.source, exit_code=error.exit_code, message=error.message, hint=error.hint)
        except OSError as error:
            reason = error.strerror or str(error)
            return Outcome(
                task.source,
                exit_code=OutputError.exit_code,
                message=f"Cannot write the result of {task.source}: {reason}.",
                hint="Check the output folder and the space left on its disk.",
            )
        except Exception as error:
            if os.environ.get("BAUTA_DEBUG") == "1":
                traceback.print_exc()
            return Outcome(
                task.source,
                exit_code=BautaError.exit_code,
                message=f"{type(error).__name__}: {error}",
                hint="This is a defect in Bauta; run again with BAUTA_DEBUG=1 and report what it prints.",
            )

    def _protect(self, task: Task, progress: Progress) -> Outcome:
        from bauta.photo import read_photo

        photo = read_photo(task.source)
        target, known = self._place(task, photo)
        ours = unchanged(target.parent, known)
        if ours and ours == known["files"] and self._decided(photo).items() <= known.items():
            return _again(task.source, target, known)
        pages = self._report_names(task, target, ours) if self.reports else ()
        record = record_path(self.directory, target)
        target.parent.mkdir(parents=True, exist_ok=True)
        record.parent.mkdir(parents=True, exist_ok=True)
        # Everything is made beside the records and then moved, so that an interruption leaves no half file.
        with tempfile.TemporaryDirectory(
            dir=self.directory / RECORDS, prefix=f"{scratch_prefix()}{os.getpid()}-"
        ) as scratch:
            draft = Path(scratch) / target.name
            report = self.pipeline.protect(photo, draft, progress=progress)
            files = {target: draft}
            for path, text in zip(pages, (report.to_html, report.to_json), strict=False):
                files[path] = Path(scratch) / path.name
                files[path].write_text(text(), encoding="utf-8")
            page = next(iter(pages), None)
            outcome = _outcome(task.source, report, target, page)
            ours = unchanged(target.parent, known)  # asked again: the mask took its time
            note = Path(scratch) / "record"
            note.write_text(
                json.dumps(
                    {
                        "schema": SCHEMA,
                        "source": digest_of_path(task.source),
                        **self._decided(photo),
                        "files": {path.name: digest_of_file(made) for path, made in files.items()},
                        "earlier": ours,
                        "outcome": {
                            **outcome.to_dict(),
                            "source": None,
                            "output": None,
                            "report": page and page.name,
                        },
                    },
                    indent=1,
                ),
                encoding="utf-8",
            )
            taken = next((path for path in files if path.name not in ours and os.path.lexists(path)), None)
            if taken is not None:
                raise OutputExists(
                    f"{taken} appeared or changed while its photo was being protected; it was left as it is.",
                    hint="Is another run writing to the same folder? Run this one again.",
                )
            # The record goes first and knows old files and new ones: should the run end here, none is foreign.
            note.replace(record)
            for path, made in files.items():
                made.replace(path)
            for name in ours.keys() - {path.name for path in files}:  # reports that tell of another product
                (target.parent / name).unlink(missing_ok=True)
        return outcome

    def _decided(self, photo: Photo) -> dict[str, str]:
        """What decides the product, as it is recorded."""
        return {"source_sha256": photo.sha256, "fingerprint": self.fingerprint}

    def _place(self, task: Task, photo: Photo) -> tuple[Path, dict[str, Any]]:
        """Where the product goes, and the record of what an earlier run put there.

        The place of the task, or the first numbered one that is free or holds our own unchanged product
        of this photo.

        Raises:
            OutputExists: when the place is that of an original.
        """
        place = self.directory / task.relative
        if photo.suffix != place.suffix:  # a JPEG called .png, or a name without an ending
            place = place.with_name(fitting_name(place.name, photo.suffix))
        if os.path.realpath(place) in self.originals:
            raise OutputExists(f"{place} is an original and is never overwritten.", hint="Give another folder with -o.")
        target, number = place, 1
        while True:
            known = read_record(record_path(self.directory, target))
            ours = known.get("source") == digest_of_path(task.source) or known.get("source_sha256") == photo.sha256
            if not os.path.lexists(target):
                return target, known if ours else {}
            if ours and target.name in unchanged(target.parent, known):
                return target, known
            number += 1
            target = place.with_name(fitting_name(f"{place.stem}-{number}", place.suffix))

    def _report_names(self, task: Task, target: Path, ours: Container[str]) -> tuple[Path, Path]:
        """Names of page and data: after the photo's stem or its whole name, or else the first number that is free."""
        numbered = (f"{target.name}-{number}" for number in itertools.count(2))
        for stem in itertools.chain([] if task.meets else [target.stem], [target.name], numbered):
            page, data = (target.with_name(fitting_name(stem, ending)) for ending in (".report.html", ".report.json"))
            if all(path.name in ours or not os.path.lexists(path) for path in (page, data)):
                break
        return page, data


def collect(paths: Sequence[Path], directory: Path) -> tuple[list[tuple[Path, Path]], list[Outcome]]:
    """The photos behind files, folders and globs, and what could not be read among them.

    What lies in the output folder is a product, not a source, unless it is named directly, or lies in a folder that
    is named and itself in the output folder: there only recorded products are passed over. When nothing else is
    left, that is a failure too.
    """
    from bauta.photo import find_photos

    found = find_photos(paths)
    failures = [
        Outcome(Path(), exit_code=problem.exit_code, message=problem.message, hint=problem.hint)
        for problem in found.problems
    ]
    folders = [_absolute(path) for path in paths if path.is_dir()]
    named = {_absolute(path) for path in paths}
    products = _absolute(directory)
    inside = [base for base in map(_base, paths) if base.is_relative_to(products)]
    sources = []
    for photo in found.photos:
        whole = _absolute(photo)
        if (
            whole.is_relative_to(products)
            and whole not in named
            and (not any(whole.is_relative_to(base) for base in inside) or _is_product(products, whole))
        ):
            continue
        root = next((folder for folder in folders if whole.is_relative_to(folder)), whole.parent)
        sources.append((photo, root))
    if found.photos and not sources:
        failures.append(
            Outcome(
                Path(),
                exit_code=UsageError.exit_code,
                message=f"Every photo that was found lies in the output folder {directory} and is taken for a product.",
                hint="Name photos that are not protected yet, or the folder that holds them.",
            )
        )
    return sources, failures


def _base(path: Path) -> Path:
    """Where the search for a path begins: itself, or the folder before the first wildcard of a pattern."""
    if os.path.lexists(path):
        return _absolute(path)
    return _absolute(Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)))


def _is_product(directory: Path, path: Path) -> bool:
    return path.name in unchanged(path.parent, read_record(record_path(directory, path)))


def write_report(report: Report, page: Path) -> None:
    """Write `report.html` to `page`, and `report.json` beside it; an earlier report of that name is replaced.

    Raises:
        UsageError: when the name does not end in ``.html``.
        OutputExists: when one of the two files exists and is no report.
        OutputError: when they cannot be written.
    """
    from bauta.photo import write_atomically

    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{page} is no name for a report.", hint="Give it the ending .html.")
    data = page.with_suffix(".json")
    taken = next((path for path in (data, page) if os.path.lexists(path)), None)
    if taken is not None and not _is_report(data):
        raise OutputExists(f"{taken} exists and is no report of Bauta's.", hint="Choose another name.")
    for path, text in ((data, report.to_json()), (page, report.to_html())):
        write_atomically(path, text.encode(), overwrite=True)


def _is_report(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and str(content.get("schema")).startswith("bauta.report/")


def protect_photos(
    sources: Sequence[tuple[Path, Path]],
    directory: Path,
    settings: ProtectSettings,
    *,
    jobs: int = 1,
    reports: bool = True,
    finished: Callable[[Outcome], None] = lambda outcome: None,
    progress: Progress = lambda stage, done, total: None,
) -> list[Outcome]:
    """Protect many photos into one folder.

    Args:
        sources: Each photo, and the folder it was found under.
        directory: The output folder; made when it is not there.
        settings: What to do.
        jobs: Worker processes; each gets its share of the cores.
        reports: Whether to write a report beside each photo.
        finished: Called with each outcome as it comes.
        progress: Called as one photo advances; only with one job.

    Returns:
        Outcomes, in the order of the sources.

    Raises:
        UsageError: when settings and photos do not fit together.
        RecognizerError: when the recognisers cannot be used.
        OutputError: when the output folder cannot be written to.
        KeyboardInterrupt: after the workers were stopped; no half file is left.
    """
    tasks = plan(sources)
    if settings.selection.boxes and len(tasks) > 1:
        raise UsageError(
            f"A box belongs to one photo, and there are {len(tasks)}.", hint="Protect that photo by itself."
        )
    if jobs < 1:
        raise UsageError(f"{jobs} jobs do nothing.", hint="Give --jobs 1 or more.")
    _make_folder(directory)
    remove_orphans(directory)
    from bauta.cloaking.pipeline import Pipeline

    pipeline = Pipeline(settings)
    pipeline.prepare()
    workshop = Workshop(
        directory,
        settings,
        reports,
        _fingerprint(pipeline, reports),
        frozenset(os.path.realpath(task.source) for task in tasks),
    )
    if jobs == 1 or len(tasks) < 2:
        workshop._pipeline = pipeline
        outcomes = []
        for task in tasks:
            outcomes.append(workshop.protect(task, progress))
            finished(outcomes[-1])
        return outcomes
    return _in_processes(workshop, tasks, min(jobs, len(tasks)), finished)


def _in_processes(
    workshop: Workshop, tasks: Sequence[Task], jobs: int, finished: Callable[[Outcome], None]
) -> list[Outcome]:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    outcomes: dict[int, Outcome] = {}

    def keep(index: int, outcome: Outcome) -> None:
        outcomes[index] = outcome
        finished(outcome)

    def attempt(indices: Sequence[int], processes: int) -> list[int]:
        """Do these tasks; what is left, in order, when a worker died and took the pool with it."""
        others = set(multiprocessing.active_children())
        executor = ProcessPoolExecutor(
            processes, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(workshop, threads)
        )
        left: list[int] = []
        try:
            with _deaf_to_interrupts():
                pending: dict[Future[Outcome], int] = {executor.submit(_work, tasks[index]): index for index in indices}
            while pending:
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    index = pending.pop(future)
                    try:
                        keep(index, future.result())
                    except BrokenProcessPool:
                        left.append(index)
        except KeyboardInterrupt:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise
        finally:
            executor.shutdown(cancel_futures=True)
            remove_orphans(workshop.directory)  # of workers that died
        return sorted(left)

    left = attempt(range(len(tasks)), jobs)
    while left:
        # Tasks start in order, so the one that a worker died of is among the first: each of these alone.
        for suspect in left[:jobs]:
            if attempt([suspect], 1):
                source = tasks[suspect].source
                keep(
                    suspect,
                    Outcome(
                        source,
                        exit_code=BautaError.exit_code,
                        message=f"A worker process ended before {source} was done.",
                        hint="Memory may have run out: make this photo smaller, or close other programs.",
                    ),
                )
        left = attempt(left[jobs:], jobs)
    return [outcomes[index] for index in range(len(tasks))]


_workshop: Workshop | None = None


def _start_worker(workshop: Workshop, threads: int) -> None:
    global _workshop
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    _workshop = workshop


def _work(task: Task) -> Outcome:
    assert _workshop is not None
    # The parent ends workers by SIGTERM; as an exception it lets temporary files be removed. Until the first
    # photo there are none.
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return _workshop.protect(task)
    except SystemExit as leaving:
        # The executor would catch it and go on with the next photo.
        os._exit(leaving.code if isinstance(leaving.code, int) else 1)


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes started in here ignore Ctrl-C, which reaches them all: the parent alone decides."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _outcome(source: Path, report: Report, target: Path, page: Path | None) -> Outcome:
    ratios = [
        face.verification.footprint.psnr
        for face in report.faces
        if face.verification.footprint is not None and face.verification.footprint.psnr is not None
    ]
    return Outcome(
        source,
        verdict=report.verdict,
        output=target,
        report=page,
        exit_code=verdict_code(report.verdict),
        message=report.summary,
        warnings=tuple(report.warnings),
        faces=len(report.faces),
        psnr=min(ratios, default=None),
        matching=len(report.recognised_by),
        judges=len(report.judges),
        seconds=report.seconds["total"],
    )


def _make_folder(directory: Path) -> None:
    try:
        (directory / RECORDS).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OutputError(
            f"Cannot write to the output folder {directory}: {error.strerror or error}.",
            hint="Give a folder that can be written to with -o.",
        ) from error


def _fingerprint(pipeline: Pipeline, reports: bool) -> str:
    """Hash of everything but the photo that decides a product: settings, weights, references, version."""
    settings = pipeline.settings
    parts = [
        __version__,
        repr(reports),
        repr(pipeline.config),
        settings.method,
        repr(settings.seed),
        settings.metadata.name,
        repr(settings.budget),
        repr(settings.fmr),
        repr((settings.selection.largest, settings.selection.boxes)),
        *(f"attacked {card.digest}" for card in pipeline.cast.surrogates),
        *(f"judge {card.digest} {pipeline.cast.thresholds[card.name]}" for card in pipeline.cast.judges),
        *(
            f"{role} {digest_of_file(path)}"
            for role, paths in (
                ("only", settings.selection.only),
                ("keep", settings.selection.keep),
                ("reference", settings.references),
            )
            for path in paths
        ),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _again(source: Path, target: Path, known: dict[str, Any]) -> Outcome:
    """The recorded outcome of a photo that is finished."""
    page = known["outcome"]["report"]
    values = {
        "source": source,
        "output": target,
        "report": page and target.with_name(page),
        "warnings": tuple(known["outcome"].get("warnings", ())),
    }
    return Outcome(**{**known["outcome"], **values, "skipped": True, "seconds": 0.0})
