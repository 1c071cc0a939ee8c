"""Many photos into one folder: resumable, in several processes, and one bad photo stops nothing.

A photo is finished when source, settings, judges, product and reports are as its record in ``DIR/.bauta`` has them.
When only the judges changed, or a report is missing, the product stays and is judged again. What changed since belongs
to whoever changed it and is never replaced.

This module imports torch only while it protects, so that worker processes can set thread counts before.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bauta.clips.animation import FORMATS, read_moving
from bauta.clips.clip import Clip, is_clip_name
from bauta.cloaking.fingerprints import judging_fingerprint, mask_fingerprint
from bauta.cloaking.outcomes import WEAK, FaceOutcome, Outcome, verdict_code
from bauta.cloaking.places import WEAK_FOLDER, Task, make_parents, plan, report_places
from bauta.cloaking.records import (
    RECORDS,
    Record,
    digest_of_file,
    digest_of_path,
    fitting_name,
    read_record,
    record_path,
    remove_orphans,
    scratch_folder,
)
from bauta.cloaking.report_files import narrow
from bauta.errors import (
    BautaError,
    InternalError,
    MissingExtra,
    OutputError,
    OutputExists,
    PhotoError,
    UsageError,
    as_bauta_error,
)
from bauta.files import make_folder
from bauta.judging.words import most_visible
from bauta.photo import read_photo
from bauta.progress import silent

if TYPE_CHECKING:
    from bauta.cloaking.clip_report import ClipReport
    from bauta.cloaking.pipeline import Pipeline
    from bauta.cloaking.report import Report
    from bauta.cloaking.settings import ProtectSettings
    from bauta.photo import Photo
    from bauta.progress import Progress


@dataclass
class FolderRun:
    """Protects photos one after another into one folder.

    Attributes:
        directory: The output folder; it exists.
        settings: What to do.
        reports: Whether to write `report.html` and `report.json`.
        mask: Fingerprint of everything but the photo that makes the product.
        judging: Fingerprint of everything that judges it.
        originals: Real paths of all sources, none of which may be written to.
        force: Whether to make finished photos anew, and to replace what others put in a product's place.
    """

    directory: Path
    settings: ProtectSettings
    reports: bool
    mask: str
    judging: str
    originals: frozenset[str]
    force: bool = False
    _pipeline: Pipeline | None = field(default=None, repr=False)

    @property
    def pipeline(self) -> Pipeline:
        """The recognisers, loaded once per process."""
        if self._pipeline is None:
            from bauta.cloaking.pipeline import Pipeline

            self._pipeline = Pipeline(self.settings)
        return self._pipeline

    def protect(self, task: Task, progress: Progress = silent, photo: Photo | Clip | None = None) -> Outcome:
        """Protect one photo or clip, which may have been read already; what goes wrong is the outcome, no exception."""
        try:
            return self._protect(task, progress, photo or read_source(task.source))
        except BautaError as error:
            return Outcome.failed(task.source, error)
        except OSError as error:
            reason = error.strerror or str(error)
            return Outcome.failed(
                task.source,
                OutputError(
                    f"Cannot write the result of {task.source}: {reason}.",
                    hint="Check the output folder and the space left on its disk.",
                ),
            )
        except Exception as error:
            if os.environ.get("BAUTA_DEBUG") == "1":
                traceback.print_exc()
            return Outcome.failed(task.source, as_bauta_error(error))

    def _protect(self, task: Task, progress: Progress, photo: Photo | Clip) -> Outcome:
        place, known = self._place(task, photo)
        ours = known.unchanged(self.directory) if known else {}
        product = None if self.force else self._finished_product(photo, known, ours)
        if known and product and ours == known.files and self._as_asked(known):
            return _again(task.source, self.directory, known)
        pages = report_places(task, place, self.directory, ours) if self.reports else ()
        (self.directory / RECORDS).mkdir(parents=True, exist_ok=True)
        # Everything is made beside the records and then moved, so that an interruption leaves no half file.
        with scratch_folder(self.directory) as scratch:
            draft = scratch / place.name
            report: Report | ClipReport | None = None
            if known and product and not isinstance(photo, Clip):
                report = self.pipeline.judge_again(photo, read_photo(product), known.faces, progress=progress)
                shutil.copyfile(product, draft)
            judged_again = report is not None
            if report is None:
                draft.unlink(missing_ok=True)
                report = self._made(photo, draft, progress, task)
            target = Path(WEAK_FOLDER) / place if verdict_code(report.verdict) == WEAK else place
            drafts = {target: draft}
            for page, text in zip(pages, (report.to_html, report.to_json), strict=False):
                drafts[page] = scratch / page.name
                drafts[page].write_text(text(), encoding="utf-8")
            for made in drafts.values():
                narrow(made, like=task.source)
            outcome = _outcome(task.source, report, self.directory / target, judged_again)
            record = Record(
                source=digest_of_path(task.source),
                source_sha256=photo.sha256,
                mask=self.mask,
                judging=self.judging,
                product=target.as_posix(),
                files={path.as_posix(): digest_of_file(made) for path, made in drafts.items()},
                earlier=known.unchanged(self.directory) if known else {},  # asked again: the mask took its time
                faces=[] if isinstance(photo, Clip) else _faces_of(report),
                outcome=outcome.to_dict(),
                report=pages[0].as_posix() if pages else None,
            )
            self._move(place, record, drafts, scratch)
        return replace(outcome, report=record.page(self.directory))

    def _made(self, photo: Photo | Clip, draft: Path, progress: Progress, task: Task) -> Report | ClipReport:
        if not isinstance(photo, Clip):
            return self.pipeline.protect(photo, draft, progress=progress)
        from bauta.cloaking.clip_keeping import Keeping
        from bauta.cloaking.clip_pipeline import ClipPipeline

        with Keeping.of(self.directory, task.source, f"{photo.sha256} {self.mask}") as keeping:
            return ClipPipeline(self.pipeline).protect(photo, draft, progress=progress, keeping=keeping)

    def _move(self, place: Path, record: Record, drafts: dict[Path, Path], scratch: Path) -> None:
        """Put what was made in its place, and take away what it replaces.

        Raises:
            OutputExists: when a place was taken meanwhile; nothing was moved.
        """
        ours = record.earlier
        taken = next((p for p in drafts if p.as_posix() not in ours and os.path.lexists(self.directory / p)), None)
        if taken is not None and not self.force:
            raise OutputExists(
                f"{self.directory / taken} appeared or changed while its photo was being protected; "
                "it was left as it is.",
                hint="Is another run writing to the same folder? Run this one again.",
            )
        home = record_path(self.directory, place)
        home.parent.mkdir(parents=True, exist_ok=True)
        for path in drafts:
            make_parents(self.directory, path)
        note = scratch / "record"
        note.write_text(record.to_json(), encoding="utf-8")
        # The record goes first and knows old files and new ones: should the run end here, none is foreign.
        note.replace(home)
        for path, made in drafts.items():
            made.replace(self.directory / path)
        for name in ours.keys() - record.files.keys():  # they tell of another product, or lie where it lay before
            (self.directory / name).unlink(missing_ok=True)

    def _finished_product(self, photo: Photo | Clip, known: Record | None, ours: dict[str, str]) -> Path | None:
        """The product of an earlier run, when a mask made now would be the same."""
        if known is None or (known.source_sha256, known.mask) != (photo.sha256, self.mask):
            return None
        return self.directory / known.product if ours.get(known.product) == known.files[known.product] else None

    def _as_asked(self, known: Record) -> bool:
        """Whether a finished photo was judged as this run would, and has its reports, or none."""
        return known.judging == self.judging and (known.report is not None) == self.reports

    def _place(self, task: Task, photo: Photo | Clip) -> tuple[Path, Record | None]:
        """Where the product belongs, below the output folder, and the record of what an earlier run put there.

        The place of the task, or the first numbered one that is free or holds our own unchanged product
        of this photo. A place stands for the one in the folder of weak photos too.

        Raises:
            OutputExists: when the place is that of an original.
        """
        first = task.relative
        if photo.suffix != first.suffix:  # a JPEG called .png, or a name without an ending
            first = first.with_name(fitting_name(first.name, photo.suffix))
        place, number = first, 1
        while True:
            both = [place, Path(WEAK_FOLDER) / place]
            original = next((p for p in both if os.path.realpath(self.directory / p) in self.originals), None)
            if original is not None:
                raise OutputExists(
                    f"{self.directory / original} is an original and is never overwritten.",
                    hint="Give another folder with -o.",
                )
            known = read_record(self.directory, place)
            if known and known.source != digest_of_path(task.source) and known.source_sha256 != photo.sha256:
                known = None
            there = [path.as_posix() for path in both if os.path.lexists(self.directory / path)]
            if self.force or not there or (known and known.unchanged(self.directory).keys() >= set(there)):
                return place, known
            number += 1
            place = first.with_name(fitting_name(f"{first.stem}-{number}", first.suffix))


def protect_photos(
    sources: Sequence[tuple[Path, Path]],
    directory: Path,
    settings: ProtectSettings,
    *,
    jobs: int = 1,
    reports: bool = True,
    force: bool = False,
    finished: Callable[[Outcome], None] = lambda outcome: None,
    progress: Progress = silent,
) -> list[Outcome]:
    """Protect many photos into one folder.

    Args:
        sources: Each photo, and the folder it was found under.
        directory: The output folder; made when it is not there.
        settings: What to do.
        jobs: Worker processes; each gets its share of the cores.
        reports: Whether to write a report beside each photo.
        force: Whether to make finished photos anew, and to replace files of other makers; originals never.
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
    if (settings.selection.boxes or settings.selection.faces) and len(tasks) > 1:
        raise UsageError(
            f"A box or a face belongs to one photo, and there are {len(tasks)}.", hint="Protect that photo by itself."
        )
    if jobs < 1:
        raise UsageError(f"{jobs} jobs do nothing.", hint="Give --jobs 1 or more.")
    if jobs > 1 and settings.unlinkable:
        raise UsageError(
            "Photos that are to be unlinkable are protected one after the other.", hint="Leave --jobs out."
        )
    photo, refused = read_first(tasks)
    for outcome in refused:
        finished(outcome)
    if photo is None:
        return refused
    originals = frozenset(os.path.realpath(task.source) for task in tasks)
    tasks = tasks[len(refused) :]
    _make_folder(directory, [task.source.parent for task in tasks])
    remove_orphans(directory)
    from bauta.cloaking.pipeline import Pipeline

    pipeline = Pipeline(settings)
    pipeline.prepare()
    run = FolderRun(
        directory,
        settings,
        reports,
        mask=mask_fingerprint(pipeline),
        judging=judging_fingerprint(pipeline),
        originals=originals,
        force=force,
    )
    if jobs == 1 or len(tasks) < 2:
        run._pipeline = pipeline
        outcomes = refused
        for task in tasks:
            outcomes.append(run.protect(task, progress, photo))
            finished(outcomes[-1])
            photo = None
        return outcomes
    return refused + _in_processes(run, tasks, min(jobs, len(tasks)), finished)


def read_source(path: Path) -> Photo | Clip:
    """A photo, or a clip where the name has a clip's ending or the picture is animated.

    Raises:
        PhotoError: when it cannot be read.
        MissingExtra: for a clip, without PyAV.
    """
    moving = read_moving(path) if is_clip_name(path.name) or path.suffix.lower() in FORMATS else None
    return moving or read_photo(path)


def read_first(tasks: Sequence[Task]) -> tuple[Photo | Clip | None, list[Outcome]]:
    """The first photo or clip that can be read, and what became of those before: without any, nothing is loaded."""
    refused: list[Outcome] = []
    for task in tasks:
        try:
            return read_source(task.source), refused
        except (PhotoError, MissingExtra) as error:
            refused.append(Outcome.failed(task.source, error))
    return None, refused


def _in_processes(
    run: FolderRun, tasks: Sequence[Task], jobs: int, finished: Callable[[Outcome], None]
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
            processes, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(run, threads)
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
            remove_orphans(run.directory)  # of workers that died
        return sorted(left)

    left = attempt(range(len(tasks)), jobs)
    while left:
        # Tasks start in order, so the one that a worker died of is among the first: each of these alone.
        for suspect in left[:jobs]:
            if attempt([suspect], 1):
                source = tasks[suspect].source
                keep(
                    suspect,
                    Outcome.failed(
                        source,
                        InternalError(
                            f"A worker process ended before {source} was done.",
                            hint="Memory may have run out: make this photo smaller, or close other programs.",
                        ),
                    ),
                )
        left = attempt(left[jobs:], jobs)
    return [outcomes[index] for index in range(len(tasks))]


_run: FolderRun | None = None


def _start_worker(run: FolderRun, threads: int) -> None:
    global _run
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    _run = run


def _work(task: Task) -> Outcome:
    assert _run is not None
    # The parent ends workers by SIGTERM; as an exception it lets temporary files be removed. Until the first
    # photo there are none.
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return _run.protect(task)
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


def _make_folder(directory: Path, like: Sequence[Path]) -> None:
    try:
        make_folder(directory / RECORDS, like=like)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except (OSError, OutputError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        raise OutputError(
            f"Cannot write to the output folder {directory}: {getattr(cause, 'strerror', None) or cause}.",
            hint="Give a folder that can be written to with -o.",
        ) from error


def _faces_of(report: Any) -> list[dict[str, Any]]:
    """What a photo's record keeps of its faces, so that it can be judged again; a clip is made anew."""
    return [
        {"box": face.box, "mask": face.mask and asdict(face.mask), "treatment": face.treatment, "cause": face.cause}
        for face in report.faces
    ]


def _outcome(source: Path, report: Report | ClipReport, target: Path, judged_again: bool) -> Outcome:
    from bauta.cloaking.clip_report import ClipReport

    if isinstance(report, ClipReport):
        return report.outcome(source, target)
    ratios = [
        face.verification.footprint.psnr
        for face in report.faces
        if face.verification.footprint is not None and face.verification.footprint.psnr is not None
    ]
    return Outcome(
        source,
        verdict=report.verdict,
        judged_again=judged_again,
        output=target,
        exit_code=verdict_code(report.verdict),
        message=report.summary,
        warnings=tuple(report.warnings),
        faces=len(report.faces),
        per_face=report.per_face,
        psnr=min(ratios, default=None),
        seen=most_visible([face.mask.visibility for face in report.faces if face.mask]),
        margin=report.margin,
        matching=len(report.recognised_by),
        judges=len(report.judges),
        removed=report.removed,
        seconds=report.seconds["total"],
    )


def _again(source: Path, directory: Path, known: Record) -> Outcome:
    """The recorded outcome of a photo that is finished."""
    recorded = {one.name: known.outcome[one.name] for one in fields(Outcome) if one.name in known.outcome}
    faces = [{**one, "box": tuple(one["box"])} for one in known.outcome.get("per_face", ())]
    values = {
        "source": source,
        "per_face": tuple(FaceOutcome(**one) for one in faces),
        "output": directory / known.product,
        "warnings": tuple(known.outcome.get("warnings", ())),
        "skipped": True,
        "judged_again": False,
        "seconds": 0.0,
    }
    return Outcome(**{**recorded, **values, "report": known.page(directory)})
