"""The addresses of the page and what each does."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route

from bauta.cloaking.settings import Choice
from bauta.errors import BautaError, NoFaceFound, OutputError, UsageError
from bauta.pages import page_template
from bauta.version import __version__
from bauta.web.album import Album
from bauta.web.entries import OTHERS, STRENGTHS, Entry, Wishes
from bauta.web.guard import Guard
from bauta.web.limits import Limits
from bauta.web.saving import pack, result_name, safe_name, save_beside
from bauta.web.texts import LANGUAGES, language_of, texts

_PATIENCE = 20.0  # seconds that a page waits for news before it is told that there are none
_SWARM = 0.15  # seconds in which changes are gathered: each news makes the page draw itself anew
_PICTURES = ("shown.jpg", "thumb.jpg", "sketch.jpg", "after.jpg")
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Refused(Exception):
    """What a page asked for cannot be; the texts have a sentence for each code."""

    def __init__(self, status: int, code: str, message: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.hint = status, code, message, hint


class Site:
    """Answers of one run.

    Args:
        album: The photos.
        limits: On uploads.
        end: Called when the person ends the program from the page.
    """

    def __init__(self, album: Album, limits: Limits, end: Callable[[], None] = lambda: None) -> None:
        self.album = album
        self.limits = limits
        self.end = end
        self.pages = 0  # that wait for news right now
        self.closing = False
        self._waiting: set[Callable[[], None]] = set()
        self._incoming = 0
        album.changed = self._changed

    def _changed(self) -> None:
        for wake in tuple(self._waiting):
            with suppress(RuntimeError):  # a loop that has ended
                wake()

    def close(self) -> None:
        """Answer pages that wait for news at once: the server is about to end."""
        self.closing = True
        self._changed()

    # The page

    async def page(self, request: Request) -> Response:
        """The page itself, in the language that the browser prefers or the person chose."""
        language = request.query_params.get("lang") or language_of(request.headers.get("accept-language", ""))
        if language not in LANGUAGES:
            language = next(iter(LANGUAGES))
        page = page_template("web", "page.html.j2").render(
            language=language, languages=LANGUAGES, t=texts(language), version=__version__
        )
        return HTMLResponse(page)

    async def static(self, request: Request) -> Response:
        """A style or script of the package."""
        name = request.path_params["name"]
        files = {file.name: file for file in resources.files("bauta.web").joinpath("static").iterdir()}
        if name not in files:
            raise Refused(404, "not-found")
        return Response(files[name].read_bytes(), media_type=_TYPES[Path(name).suffix])

    async def words(self, request: Request) -> Response:
        """All texts of a language."""
        if (language := request.path_params["language"]) not in LANGUAGES:
            raise Refused(404, "not-found")
        return JSONResponse(texts(language))

    async def state(self, request: Request) -> Response:
        """What changed since a version; waits a while when nothing did."""
        since = int(request.query_params.get("since", "0")) if request.query_params.get("since", "0").isdecimal() else 0
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(news.set)

        self.pages += 1
        self._waiting.add(wake)
        try:
            if since >= self.album.version and not self.closing:
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), _PATIENCE)
                await asyncio.sleep(_SWARM)
            return JSONResponse(self.album.state(since))
        finally:
            self._waiting.discard(wake)
            self.pages -= 1

    # Photos

    async def upload(self, request: Request) -> Response:
        """One photo as the body of the request; its name in ``X-Name``."""
        limits, album = self.limits, self.album
        if len(album.entries) + self._incoming >= limits.photos:
            raise Refused(413, "too-many")
        held = sum(entry.size for entry in album.entries.values())
        entry = album.place(safe_name(unquote(request.headers.get("x-name", "photo"))))
        self._incoming += 1
        try:
            size = await self._receive(
                request, entry.folder / "original", limits.photo_bytes, limits.album_bytes - held
            )
        except BaseException:
            shutil.rmtree(entry.folder, ignore_errors=True)
            raise
        finally:
            self._incoming -= 1
        entry.size = size
        album.add(entry)
        return JSONResponse({"id": entry.id}, 201)

    @staticmethod
    async def _receive(request: Request, place: Path, most: int, left: int) -> int:
        """Write a body to a file, as long as it keeps to the limits."""
        said = request.headers.get("content-length", "0")
        if not said.isdecimal() or int(said) > most:
            raise Refused(413, "too-large")
        if int(said) > left:
            raise Refused(413, "album-full")
        size = 0
        try:
            with open(place, "xb", opener=_private) as stream:
                async for part in request.stream():
                    size += len(part)
                    if size > min(most, left):
                        raise Refused(413, "too-large")
                    stream.write(part)
        except OSError as error:
            raise Refused(507, "disk", error.strerror or "") from error
        if not size:
            raise Refused(400, "photo.unreadable")
        return size

    def _entry(self, request: Request) -> Entry:
        entry = self.album.entries.get(request.path_params["id"])
        if entry is None:
            raise Refused(404, "gone")
        return entry

    def _entries(self, asked: object) -> list[Entry]:
        """Photos by id, or all."""
        if asked == "all":
            return list(self.album.entries.values())
        if not isinstance(asked, list):
            raise Refused(400, "usage")
        return [self.album.entries[one] for one in asked if isinstance(one, str) and one in self.album.entries]

    async def picture(self, request: Request) -> Response:
        """A picture of a photo: as a whole, or one of its faces."""
        entry, name = self._entry(request), request.path_params["name"]
        faces = [f"{kind}-{face['number']}.png" for kind in ("before", "sketch", "after") for face in entry.faces]
        if name not in _PICTURES and name not in faces:
            raise Refused(404, "not-found")
        return self._file(entry.folder / name)

    async def result(self, request: Request) -> Response:
        """The protected photo; a weak one only when the person said so."""
        entry = self._entry(request)
        if entry.result is None or not entry.deliverable:
            raise Refused(409, "held")
        return self._file(entry.folder / entry.result["file"], result_name(entry.name, entry.result["suffix"]))

    async def report(self, request: Request) -> Response:
        """The report of a protected photo, as a file: it shows the bare face."""
        entry = self._entry(request)
        return self._file(entry.folder / "report.html", f"{Path(entry.name).stem}.report.html")

    async def kept(self, request: Request) -> Response:
        """What must be kept to take a mask off again."""
        entry = self._entry(request)
        return self._file(entry.folder / "restore.json", f"{Path(entry.name).stem}.restore.json")

    @staticmethod
    def _file(path: Path, download: str | None = None) -> Response:
        if not path.is_file():
            raise Refused(404, "not-found")
        response = FileResponse(path)
        if download is not None:
            response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(download)}"
            response.headers["Content-Type"] = "application/octet-stream"
        return response

    async def change(self, request: Request) -> Response:
        """Do something to one photo."""
        entry, asked = self._entry(request), await _json(request)
        match asked.get("do"):
            case "choose":
                if asked.get("choice") not in get_args(Choice) or not isinstance(asked.get("face"), int):
                    raise Refused(400, "usage")
                self.album.choose(entry, asked["face"], asked["choice"])
            case "pick":
                self.album.pick(entry, int(asked.get("face", 0)))
            case "sketch":
                self.album.draw(entry)
            case "release":
                self.album.release(entry, bool(asked.get("taken")))
            case "remove":
                await run_in_threadpool(self.album.remove, entry)
            case _:
                raise Refused(400, "usage")
        return JSONResponse({})

    # The album

    async def wish(self, request: Request) -> Response:
        """Change what is asked for all photos."""
        asked = await _json(request)
        known = {one["name"] for one in (self.album.abilities or {}).get("methods", [])}
        allowed: dict[str, tuple[Any, ...]] = {
            "strength": STRENGTHS,
            "method": tuple(known),
            "cover": (True, False),
            "erasable": (True, False),
            "metadata": ("private", "strip"),
            "others": OTHERS,
        }
        names = {field.name for field in fields(Wishes)}
        for name, value in asked.items():
            fine = isinstance(value, str) and len(value) <= 500 if name == "message" else value in allowed.get(name, ())
            if name not in names or not fine:
                raise Refused(400, "usage")
        self.album.wish(**asked)
        return JSONResponse({})

    async def work(self, request: Request) -> Response:
        """Protect, cancel, retry, cover photos, save them beside their originals, or forget who was picked."""
        asked = await _json(request)
        entries = self._entries(asked.get("photos", "all"))
        done: dict[str, Any] = {}
        match asked.get("do"):
            case "protect":
                done["count"] = self.album.protect(entries)
            case "cancel":
                await run_in_threadpool(self.album.cancel, entries)
            case "retry":
                done["count"] = self.album.retry(entries)
            case "cover":
                done["count"] = self.album.cover(entries)
            case "everybody":
                self.album.pick(None)
            case "save":
                done = await run_in_threadpool(self._save_beside, entries)
            case _:
                raise Refused(400, "usage")
        return JSONResponse(done)

    def _save_beside(self, entries: list[Entry]) -> dict[str, Any]:
        saved, problems = [], []
        for entry in entries:
            if entry.source is None or not entry.deliverable or entry.saved or entry.result is None:
                continue
            try:
                content = (entry.folder / entry.result["file"]).read_bytes()
                place = save_beside(entry.source, content, entry.result["suffix"])
            except (BautaError, OSError) as error:
                problems.append(str(error))
                continue
            with self.album.lock:
                entry.saved = str(place)
                self.album.touch(entry)
            saved.append(str(place))
        return {"saved": saved, "problems": problems}

    async def zip(self, request: Request) -> Response:
        """Every result that is handed out, in one file."""
        with self.album.lock:
            chosen = [entry for entry in self.album.entries.values() if entry.deliverable and entry.result]
        if not chosen:
            raise Refused(409, "nothing")
        files: list[tuple[str, Path]] = []
        for entry in chosen:
            assert entry.result is not None
            name = result_name(entry.name, entry.result["suffix"])
            files.append((name, entry.folder / entry.result["file"]))
            if entry.result["restorable"]:
                files.append((f"keep-to-yourself/{Path(name).stem}.restore.json", entry.folder / "restore.json"))
        place = self.album.folder / f"results-{secrets.token_hex(8)}.zip"
        try:
            await run_in_threadpool(pack, files, place)
        except OSError as error:
            place.unlink(missing_ok=True)
            raise Refused(507, "disk", error.strerror or "") from error
        response = FileResponse(place, background=BackgroundTask(place.unlink, missing_ok=True))
        response.headers["Content-Disposition"] = 'attachment; filename="bauta-protected.zip"'
        return response

    # Methods that need more

    async def keep(self, request: Request) -> Response:
        """A fitted file, a key or a likeness for the method, as the body of the request; or a new key."""
        kind = request.path_params["kind"]
        if kind not in ("fitted", "key", "owner", "reference", "restore"):
            raise Refused(404, "not-found")
        place = self.album.folder / f"{kind}-{secrets.token_hex(8)}"
        name = safe_name(unquote(request.headers.get("x-name", kind)))
        if kind in ("key", "owner") and request.query_params.get("new") == "1":
            place.touch(mode=0o600)
            place.write_bytes(secrets.token_bytes(32))
        else:
            await self._receive(request, place, self.limits.file_bytes, self.limits.file_bytes)
        self.album.keep_file(kind, name, place)
        return JSONResponse({"name": name})

    async def passphrase(self, request: Request) -> Response:
        """What fitted files are sealed under."""
        text = (await _json(request)).get("text")
        if not isinstance(text, str) or len(text) > 1000:
            raise Refused(400, "usage")
        self.album.keep_passphrase(text)
        return JSONResponse({})

    async def kept_file(self, request: Request) -> Response:
        """A fitted file or key that was made here, for the person to keep."""
        kept = self.album.files.get(request.path_params["kind"])
        if kept is None:
            raise Refused(404, "not-found")
        return self._file(kept[1], kept[0])

    async def fit(self, request: Request) -> Response:
        """Let a method learn a person, from photos of the album."""
        asked = await _json(request)
        method, entries = self._method(asked, "fits"), self._entries(asked.get("photos"))
        if len(entries) < 2:
            raise Refused(400, "few-photos")
        place = self.album.folder / f"fitted-{secrets.token_hex(8)}"
        about = {
            "method": method,
            "files": [str(entry.folder / "original") for entry in entries],
            "strength": self.album.wishes.strength,
            "to": str(place),
            "passphrase": self.album.passphrase,
        }
        self.album.do_chore("fit", about, lambda answer: self.album.keep_file("fitted", f"me.{method}.mask", place))
        return JSONResponse({})

    async def undo(self, request: Request) -> Response:
        """Restore or read a photo, which is the body of the request, with the files that are kept."""
        kind = request.path_params["kind"]
        if kind not in ("restore", "read"):
            raise Refused(404, "not-found")
        asked = request.query_params.get("method")  # without one, what travels in the file takes the masks off
        method = self._method({"method": asked}, f"{kind}s") if asked or kind == "read" else None
        folder = self.album.folder / f"{kind}-{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700)
        await self._receive(request, folder / "original", self.limits.photo_bytes, self.limits.album_bytes)
        files = {name: str(path) for name, (_, path) in self.album.files.items()}
        needs = self.album.needs(method) if method else ("owner",)
        name = safe_name(unquote(request.headers.get("x-name", "photo")))
        about: dict[str, Any] = {
            "method": method,
            "folder": str(folder),
            "file": str(folder / "original"),
            "name": name,
        }
        about["fitted"] = [files["fitted"]] if "fitted" in needs and "fitted" in files else []
        about["key"] = files["key"] if "key" in needs and "key" in files else None
        about["owner"] = files.get("owner") if "owner" in needs else None
        about["kept"] = files.get("restore") if method else None
        about["passphrase"] = self.album.passphrase

        def then(answer: dict[str, Any]) -> None:
            if kind == "restore":
                self.album.files["restored"] = (
                    f"{Path(name).stem}.restored{Path(answer['file']).suffix}",
                    folder / answer["file"],
                )

        self.album.do_chore(kind, about, then)
        return JSONResponse({})

    def _method(self, asked: dict[str, Any], able: str) -> str:
        known = {one["name"] for one in (self.album.abilities or {}).get("methods", []) if one[able]}
        if asked.get("method") not in known:
            raise Refused(400, "usage")
        return str(asked["method"])

    async def finish(self, request: Request) -> Response:
        """End the program; all photos in it are removed."""
        return JSONResponse({}, background=BackgroundTask(self.end))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


async def _json(request: Request) -> dict[str, Any]:
    """The body of a small request."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > 1_000_000:
            raise Refused(413, "usage")
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "usage") from error
    if not isinstance(values, dict):
        raise Refused(400, "usage")
    return values


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"code": error.code, "message": error.message, "hint": error.hint}, error.status)


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, BautaError)
    status = 409 if isinstance(error, UsageError | NoFaceFound | OutputError) else 500
    return JSONResponse({"code": error.code, "message": error.message, "hint": error.hint}, status)


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # whoever asked has gone


def make_app(site: Site, token: str, hosts: list[str]) -> Starlette:
    """The addresses of a run, all below its token.

    Args:
        site: Answers.
        token: First part of every path.
        hosts: What the Host header may say.
    """
    get: list[tuple[str, Callable[[Request], Awaitable[Response]]]] = [
        ("/", site.page),
        ("/static/{name}", site.static),
        ("/texts/{language}", site.words),
        ("/state", site.state),
        ("/photos/{id}/result", site.result),
        ("/photos/{id}/report", site.report),
        ("/photos/{id}/kept", site.kept),
        ("/photos/{id}/{name}", site.picture),
        ("/files/{kind}", site.kept_file),
        ("/zip", site.zip),
    ]
    post: list[tuple[str, Callable[[Request], Awaitable[Response]]]] = [
        ("/photos", site.upload),
        ("/photos/{id}", site.change),
        ("/wishes", site.wish),
        ("/work", site.work),
        ("/files/{kind}", site.keep),
        ("/passphrase", site.passphrase),
        ("/fit", site.fit),
        ("/undo/{kind}", site.undo),
        ("/end", site.finish),
    ]
    routes = [Route(path, answer, methods=["GET"]) for path, answer in get]
    routes += [Route(path, answer, methods=["POST"]) for path, answer in post]
    return Starlette(
        routes=[Mount(f"/{token}", routes=routes)],
        middleware=[Middleware(Guard, token=token, hosts=hosts)],
        exception_handlers={Refused: _refused, BautaError: _failed, ClientDisconnect: _left},
    )
