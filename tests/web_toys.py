"""What works on images in tests of the page: in milliseconds, on photos that say what they do to it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from bauta.errors import UnreadablePhoto
from bauta.web.album import Album
from bauta.web.limits import Limits
from bauta.web.worker import Worker

TOKEN = "token"
HOST = "127.0.0.1:4321"


def photo(**facts: object) -> bytes:
    """A "photo" whose bytes say what happens to it.

    ``faces``, ``verdict``, ``person`` (of its faces, a number for each), ``steps`` of protecting it, ``die`` with the
    kind of job that ends the process, ``hang`` with that which never ends, ``bad`` for one that cannot be read.
    """
    return ";".join(f"{name}={value}" for name, value in facts.items()).encode() or b"faces=1"


class Toy:
    """Does what the photo's bytes say."""

    def do(self, kind: str, about: Mapping[str, Any], tell: Callable[[str, Any], None]) -> dict[str, Any]:
        if kind == "methods":
            veil = {"name": "veil", "summary": "A veil.", "needs": ["fitted", "key", "message"]}
            names = [
                {"name": "toy", "summary": "A toy.", "needs": [], "fits": False, "reads": False, "restores": False}
            ]
            names.append({**veil, "fits": True, "reads": True, "restores": True, "sealed": True})
            return {"methods": names, "default": "toy", "attacked": ["one"], "judges": ["two"]}
        if kind == "warm":
            return {}
        if kind == "fit":
            Path(about["to"]).write_bytes(b"fitted")
            return {"method": about["method"], "photos": len(about["files"]), "attacked": []}
        if kind == "restore":
            (Path(about["folder"]) / "restored.jpg").write_bytes(b"restored")
            return {"file": "restored.jpg"}
        if kind == "read":
            return {"readings": [{"message": "mine", "chance": 1e-6}, {"message": None, "chance": 0.4}]}
        folder = Path(about["folder"])
        says = dict(part.split("=") for part in Path(about["file"]).read_text().split(";"))
        if says.get("die") == kind:
            os._exit(9)
        if says.get("hang") == kind:
            time.sleep(60)
        if "bad" in says:
            raise UnreadablePhoto("It is cut off.", hint="Copy it again.")
        count = int(says.get("faces", 1))
        made: dict[str, Callable[[], dict[str, Any]]] = {
            "look": lambda: self.look(folder, says, count, tell),
            "sketch": lambda: self.picture(folder, "sketch", count),
            "protect": lambda: self.protect(folder, says, about, tell),
        }
        return made[kind]()

    @staticmethod
    def picture(folder: Path, name: str, count: int) -> dict[str, Any]:
        shade = {"before": 90, "sketch": 120, "after": 150, "shown": 90}[name]
        whole = Image.new("RGB", (240, 160), (shade, 110, 140))
        whole.save(folder / f"{name}.jpg")
        for number in range(1, count + 1):
            whole.crop((0, 0, 40, 40)).save(folder / f"{name}-{number}.png")
        return {}

    def look(
        self, folder: Path, says: Mapping[str, str], count: int, tell: Callable[[str, Any], None]
    ) -> dict[str, Any]:
        size = {"width": 240, "height": 160, "format": "JPEG", "suffix": ".jpg"}
        self.picture(folder, "shown", 0)
        (folder / "thumb.jpg").write_bytes((folder / "shown.jpg").read_bytes())
        self.picture(folder, "before", count)
        tell("shown", size)
        who = says.get("person", "1" * count)
        people = [[1.0 if str(at) == one else 0.0 for at in range(10)] for one in who]
        faces = [
            {"number": n + 1, "box": [10 + 45 * n % 200, 20, 45 + 45 * n % 200, 60], "small": False}
            for n in range(count)
        ]
        return {**size, "faces": faces, "people": people, "limit": 0.5, "limited": []}

    def protect(
        self, folder: Path, says: Mapping[str, str], about: Mapping[str, Any], tell: Callable[[str, Any], None]
    ) -> dict[str, Any]:
        steps = int(says.get("steps", 1))
        for step in range(steps):
            tell("progress", {"stage": "making the mask", "done": step, "total": steps})
            if steps > 1:
                time.sleep(0.02)
        (folder / "result.jpg").write_bytes(b"result of " + (folder / "original").read_bytes())
        (folder / "report.html").write_text("<p>report</p>")
        choices = {int(number): choice for number, choice in about["choices"].items()}
        self.picture(folder, "after", len(choices))
        asked = says.get("verdict", "protected")
        faces, findings = [], []
        for number, choice in choices.items():
            verdict = asked if choice == "protect" else "protected"
            treatment = {"protect": "mask", "leave": "left"}.get(choice, choice)
            faces.append(
                {
                    "number": number,
                    "treatment": treatment,
                    "verdict": None if choice == "leave" else verdict,
                    "margin": 0.1,
                    "seen": "hardly" if choice == "protect" else None,
                }
            )
            if verdict == "weak":
                findings.append(
                    {"kind": "match", "face": number, "judge": "two", "cosine": 0.5, "limit": 0.3, "forces": "weak"}
                )
        verdict = "weak" if findings else "protected" if asked == "weak" else asked
        return {
            "verdict": verdict,
            "held": verdict in ("weak", "partial"),
            "margin": 0.1,
            "seconds": 1.0,
            "seen": "hardly",
            "removed": {"positions and places": 2},
            "judges": ["two"],
            "independent": 1,
            "faces": faces,
            "findings": findings,
            "conditions": [{"name": "saved", "matched": []}, {"name": "jpeg-75", "matched": ["two"]}],
            "smallest": 20.0,
            "file": "result.jpg",
            "suffix": ".jpg",
            "restorable": False,
            "strength": about["strength"],
        }


@contextmanager
def album(folder: Path, limits: Limits | None = None) -> Iterator[Album]:
    """An album whose worker is the toy's process."""
    worker = Worker(Toy, seconds=(limits or Limits()).seconds)
    made = Album(folder, worker)
    worker.start()
    made.open()
    try:
        yield made
    finally:
        worker.end()
