"""The photos of a run, what is asked for each, and where each stands: what every page of the run shows."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import mul
from pathlib import Path
from typing import Any

from bauta.cloaking.settings import Choice
from bauta.errors import UsageError
from bauta.web.entries import STRENGTHS, Entry, Wishes
from bauta.web.worker import Job, Worker


class Album:
    """Every photo of a run.

    Args:
        folder: The private one.
        worker: Does the work.
        changed: Called after each change, from any thread.
    """

    def __init__(self, folder: Path, worker: Worker, changed: Callable[[], None] = lambda: None) -> None:
        self.folder = folder
        self.worker = worker
        self.changed = changed
        self.lock = threading.RLock()
        self.version = 0
        self.wishes = Wishes()
        self.entries: dict[str, Entry] = {}
        self.abilities: dict[str, Any] | None = None
        self.trouble: dict[str, str] | None = None
        self.person: tuple[str, int] | None = None
        self.files: dict[str, tuple[str, Path]] = {}  # fitted file, key, likeness: name and place
        self.passphrase = ""  # of a sealed fitted file; never told to a page
        self.chore: dict[str, Any] | None = None  # the last fit, restoring or reading
        self._embedding: tuple[list[float], float] | None = None
        self._pace: float | None = None
        self._count = 0
        self.closed = False

    def open(self) -> None:
        """Ask the worker what it can do; that it answers shows that it can start. Then it loads what it will need."""
        self.worker.ask("methods", {}, self._able)
        self.worker.ask("warm", {}, lambda word, values: None)

    def _able(self, word: str, values: dict[str, Any]) -> None:
        with self.lock:
            if word == "done":
                self.abilities = values
                if not self.wishes.method:
                    self.wishes = replace(self.wishes, method=values["default"])
            else:
                self.trouble = values
            self.touch()

    def touch(self, entry: Entry | None = None) -> None:
        """Note that a photo, or what is asked for all, has changed; the lock is held."""
        self.version += 1
        if entry is not None:
            entry.version = self.version
        self.changed()

    # Photos come and go

    def place(self, name: str, source: Path | None = None) -> Entry:
        """A new photo's folder and entry; `add` takes it in once its file is there."""
        with self.lock:
            if self.closed:
                raise UsageError("The program is about to end.", hint="Start it again.")
            self._count += 1
            entry = Entry(f"p{self._count}", name, self.folder / f"p{self._count}", source)
            entry.folder.mkdir(mode=0o700)
        return entry

    def close(self) -> None:
        """Take no more photos, and end the worker: the folder is about to go."""
        with self.lock:
            self.closed = True
        self.worker.end()

    def add(self, entry: Entry) -> None:
        """Take a photo in and look at it."""
        with self.lock:
            self.entries[entry.id] = entry
            self.touch(entry)
            about = {"folder": str(entry.folder), "file": str(entry.folder / "original"), "name": entry.name}
            entry.job = self.worker.ask(
                "look",
                about,
                lambda word, values: self._looked(entry, word, values),
                lambda word, values: self._shown(entry, values),
            )

    def _shown(self, entry: Entry, facts: dict[str, Any]) -> None:
        with self.lock:
            entry.state, entry.facts = "looking", facts
            self.touch(entry)

    def _looked(self, entry: Entry, word: str, values: dict[str, Any]) -> None:
        with self.lock:
            entry.job = None
            if word == "done":
                entry.facts = {key: values[key] for key in ("width", "height", "format", "suffix", "limited")}
                entry.faces, entry.people, entry.limit = values["faces"], values["people"], values["limit"]
                entry.choices = {face["number"]: "protect" for face in entry.faces}
                entry.state = "ready"
                self._choose_person(entry)
                if not entry.faces:
                    entry.state, entry.error = "failed", {"code": "no-face", "message": "", "hint": ""}
            else:
                entry.state, entry.error = "failed", values or {"code": "cancelled", "message": "", "hint": ""}
            self.touch(entry)

    def remove(self, entry: Entry) -> None:
        """Forget a photo, with its files."""
        with self.lock:
            for job in (entry.job, entry.sketch):
                if job is not None:
                    self.worker.cancel(job)
            self.entries.pop(entry.id, None)
            if self.person is not None and self.person[0] == entry.id:
                self.person = None  # who was picked stays known by the embedding
            self.touch()
        shutil.rmtree(entry.folder, ignore_errors=True)

    # Wishes

    def wish(self, **changes: Any) -> None:
        """Change what is asked for the whole album; photos that are done keep their results."""
        with self.lock:
            self.wishes = replace(self.wishes, **changes)
            if "others" in changes and self._embedding:
                for entry in self.entries.values():
                    if self._choose_person(entry):
                        self.touch(entry)
            if "strength" in changes or "method" in changes:
                for entry in self.entries.values():
                    entry.strength = None
            self.touch()

    def choose(self, entry: Entry, number: int, choice: Choice) -> None:
        """What is done to one face."""
        with self.lock:
            if number not in entry.choices:
                raise UsageError(f"{entry.name} has no face {number}.", hint="Choose one that is outlined.")
            self._require_idle(entry)
            entry.choices[number] = choice
            self._undo(entry)
            self.touch(entry)

    def pick(self, entry: Entry | None, number: int = 0) -> None:
        """Protect only the person with this face, in all photos; without one, everybody again."""
        with self.lock:
            if entry is None:
                self.person = self._embedding = None
            else:
                if entry.limit is None or not 1 <= number <= len(entry.people):
                    raise UsageError("This face cannot be found again.", hint="Choose the faces by hand.")
                self.person, self._embedding = (entry.id, number), (entry.people[number - 1], entry.limit)
            for each in self.entries.values():
                if entry is None and each.state in ("ready", "done"):
                    each.choices = dict.fromkeys(each.choices, "protect")
                    self._undo(each)
                elif not self._choose_person(each):
                    continue
                self.touch(each)
            self.touch()

    def _choose_person(self, entry: Entry) -> bool:
        """Choices as the picked person asks; whether they changed."""
        if self._embedding is None or entry.state not in ("ready", "done") or not entry.people:
            return False
        embedding, limit = self._embedding
        choices: dict[int, Choice] = {
            number: "protect" if sum(map(mul, embedding, other)) >= limit else self.wishes.others
            for number, other in enumerate(entry.people, 1)
        }
        if choices == entry.choices:
            return False
        entry.choices = choices
        self._undo(entry)
        return True

    def _undo(self, entry: Entry) -> None:
        """A result that was made of other choices is none any more."""
        if entry.state == "done":
            entry.state = "ready"
        entry.result, entry.released, entry.saved = None, False, None

    @staticmethod
    def _require_idle(entry: Entry) -> None:
        if entry.state not in ("ready", "done", "failed"):
            raise UsageError(f"{entry.name} is being worked on.", hint="Wait, or cancel it first.")

    # Work

    def settings(self, entry: Entry) -> dict[str, Any]:
        """What the worker is told of a photo."""
        wishes = self.wishes
        needs = self.needs(wishes.method)
        kept = {kind: [str(self.files[kind][1])] for kind in ("fitted", "reference") if kind in self.files}
        return {
            "folder": str(entry.folder),
            "file": str(entry.folder / "original"),
            "name": entry.name,
            "choices": {str(number): choice for number, choice in entry.choices.items()},
            "strength": entry.strength or wishes.strength,
            "method": wishes.method,
            "fallback": "blur" if wishes.cover else "none",
            "metadata": wishes.metadata,
            "message": wishes.message if "message" in needs else None,
            "fitted": kept.get("fitted", []) if "fitted" in needs else [],
            "like": kept.get("reference", []) if "reference" in needs else [],
            "passphrase": self.passphrase if "fitted" in needs else None,
            "owner": str(self.files["owner"][1]) if wishes.erasable and "owner" in self.files else None,
            "erasable": wishes.erasable,
            "key": str(self.files["key"][1]) if "key" in needs and "key" in self.files else None,
        }

    def needs(self, method: str) -> Sequence[str]:
        """What a method must be given."""
        known = (self.abilities or {}).get("methods", [])
        return next((one["needs"] for one in known if one["name"] == method), ())

    def draw(self, entry: Entry) -> None:
        """Make a sketch of a photo, instead of one that is being made."""
        with self.lock:
            if entry.state not in ("ready", "done", "queued", "working") or not entry.faces:
                return
            if entry.sketch is not None:
                self.worker.cancel(entry.sketch)
            if all(choice == "leave" for choice in entry.choices.values()):
                return
            entry.sketching = True
            entry.sketch = job = self.worker.ask(
                "sketch", self.settings(entry), lambda word, values: self._drawn(entry, job, word)
            )
            self.touch(entry)

    def _drawn(self, entry: Entry, job: Job, word: str) -> None:
        with self.lock:
            if entry.sketch is job:
                entry.sketch, entry.sketching = None, False
            if word == "done":
                entry.sketched += 1
            self.touch(entry)

    def protect(self, entries: Sequence[Entry]) -> int:
        """Queue those that can be protected, and return how many."""
        queued = 0
        with self.lock:
            for entry in entries:
                if entry.state not in ("ready", "done", "failed") or not entry.faces:
                    continue
                if all(choice == "leave" for choice in entry.choices.values()):
                    continue
                self._undo(entry)
                entry.state, entry.error, entry.progress = "queued", None, None
                entry.job = self.worker.ask(
                    "protect",
                    self.settings(entry),
                    lambda word, values, entry=entry: self._protected(entry, word, values),  # type: ignore[misc]
                    lambda word, values, entry=entry: self._advanced(entry, values),  # type: ignore[misc]
                )
                queued += 1
                self.touch(entry)
        return queued

    def _advanced(self, entry: Entry, values: dict[str, Any]) -> None:
        with self.lock:
            if entry.state == "queued":
                entry.state, entry.began = "working", time.monotonic()
            entry.progress = values
            self.touch(entry)

    def _protected(self, entry: Entry, word: str, values: dict[str, Any]) -> None:
        with self.lock:
            entry.job, entry.progress = None, None
            if word == "done":
                entry.state, entry.result = "done", {**values, "stamp": self.version}
                pace = values["seconds"] / max(1, entry.masks)
                self._pace = pace if self._pace is None else 0.6 * self._pace + 0.4 * pace
            elif word == "cancelled":
                entry.state = "ready"
            else:
                entry.state, entry.error = "failed", values
            self.touch(entry)

    def cancel(self, entries: Sequence[Entry]) -> None:
        """Call off what waits and what is being done."""
        with self.lock:
            jobs = [entry.job for entry in entries if entry.job is not None and entry.state in ("queued", "working")]
        for job in reversed(jobs):  # those that wait before the one that runs, so that none begins meanwhile
            self.worker.cancel(job)

    def retry(self, entries: Sequence[Entry]) -> int:
        """Protect those that failed their judges once more, a step stronger, and return how many."""
        again = []
        with self.lock:
            for entry in entries:
                at = STRENGTHS.index(entry.strength or self.wishes.strength)
                if entry.result and entry.result["verdict"] in ("weak", "fragile") and at + 1 < len(STRENGTHS):
                    entry.strength = STRENGTHS[at + 1]
                    again.append(entry)
            return self.protect(again)

    def cover(self, entries: Sequence[Entry]) -> int:
        """Blur the faces that no mask protected, and return in how many photos."""
        again = []
        with self.lock:
            for entry in entries:
                if not entry.result:
                    continue
                bad = [
                    face["number"]
                    for face in entry.result["faces"]
                    if face["treatment"] == "none"
                    or (face["treatment"] == "mask" and face["verdict"] in ("weak", "fragile"))
                ]
                if bad:
                    entry.choices |= dict.fromkeys(bad, "blur")
                    again.append(entry)
            return self.protect(again)

    def release(self, entry: Entry, taken: bool) -> None:
        """Hand a weak result out all the same, or hold it back again."""
        with self.lock:
            entry.released = taken
            self.touch(entry)

    # What methods do beside protecting

    def keep_file(self, kind: str, name: str, path: Path) -> None:
        """A fitted file, a key or a likeness, which lies in the private folder."""
        with self.lock:
            self.files[kind] = (name, path)
            self.touch()

    def keep_passphrase(self, text: str) -> None:
        """What fitted files are sealed under, for as long as the program runs."""
        with self.lock:
            self.passphrase = text
            self.touch()

    def do_chore(self, kind: str, about: dict[str, Any], then: Callable[[dict[str, Any]], None]) -> None:
        """Fit, restore or read; one at a time.

        Raises:
            UsageError: while another one is being done.
        """
        with self.lock:
            if self.chore is not None and self.chore["state"] == "working":
                raise UsageError("One such thing is being done already.", hint="Wait until it has ended.")
            chore = self.chore = {"kind": kind, "state": "working", "progress": None, "answer": None, "error": None}

            def ended(word: str, values: dict[str, Any]) -> None:
                with self.lock:
                    chore["state"] = "done" if word == "done" else "failed"
                    chore["answer" if word == "done" else "error"] = values
                    if word == "done":
                        then(values)
                    self.touch()

            def told(word: str, values: Any) -> None:
                with self.lock:
                    chore["progress"] = values
                    self.touch()

            self.worker.ask(kind, about, ended, told)
            self.touch()

    # What the page shows

    @property
    def busy(self) -> bool:
        """Whether anything waits or is being done."""
        with self.lock:
            return any(entry.state in ("waiting", "looking", "queued", "working") for entry in self.entries.values())

    def state(self, since: int = 0) -> dict[str, Any]:
        """Everything that changed after a version, and the order of all photos."""
        with self.lock:
            return {
                "version": self.version,
                "photos": [entry.to_dict() for entry in self.entries.values() if entry.version > since],
                "order": list(self.entries),
                "album": {
                    "wishes": vars(self.wishes),
                    "picked": self._embedding is not None,
                    "person": self.person and {"photo": self.person[0], "face": self.person[1]},
                    "abilities": self.abilities,
                    "trouble": self.trouble,
                    "opens": bool(self.passphrase),
                    "files": {kind: name for kind, (name, _) in self.files.items()},
                    "chore": self.chore,
                    "left": self.seconds_left(),
                },
            }

    def seconds_left(self) -> float | None:
        """Estimate for what is queued and being done; None where nothing is, or nothing is known yet."""
        with self.lock:
            queued = [entry for entry in self.entries.values() if entry.state in ("queued", "working")]
            if not queued:
                return None
            left, pace = 0.0, self._pace
            for entry in queued:
                spent = time.monotonic() - entry.began if entry.state == "working" else 0.0
                share = _share(entry.progress)
                if pace is None and spent and share > 0.05:
                    pace = spent / share / max(1, entry.masks)
                if pace is not None:
                    whole = pace * max(1, entry.masks)
                    left += max(whole - spent, 0.1 * whole) if entry.state == "working" else whole
            return None if pace is None else left


def _share(progress: Mapping[str, Any] | None) -> float:
    """How much of a photo is done, about: making the mask takes most of the time."""
    if not progress or not progress["total"]:
        return 0.0
    part = float(progress["done"]) / float(progress["total"])
    return {"making the mask": 0.85 * part, "judging the result": 0.85 + 0.15 * part}.get(progress["stage"], 0.0)
