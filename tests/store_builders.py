"""Stores of made-up rows, and services with a toy recogniser, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bauta.gallery.makers import Maker
from bauta.gallery.service import FaceService, maker_of
from bauta.gallery.store import Store
from bauta.keys import DeploymentKey
from bauta.templates.base import Protector
from conftest import faces, fitted
from gallery_builders import PROTECTOR, RECOGNIZER, key_of

MAKER = Maker("toy", RECOGNIZER, "pixelated-image", PROTECTOR)
POSTGRES = Path("/usr/lib/postgresql/15/bin")


def row(seed: int, size: int = 64) -> bytes:
    """What a record holds, and nothing else does."""
    return np.random.default_rng(seed).bytes(size)


def new_store(folder: Path, place: Path | str | None = None, key: DeploymentKey | None = None, **more: object) -> Store:
    return Store.create(place or folder / "gallery.db", folder / "keys.db", key or key_of(), MAKER, **more)  # type: ignore[arg-type]


def open_store(
    folder: Path, place: Path | str | None = None, key: DeploymentKey | None = None, **more: object
) -> Store:
    return Store.open(place or folder / "gallery.db", folder / "keys.db", key or key_of(), **more)  # type: ignore[arg-type]


def enrolled(store: Store, name: str, *seeds: int, tenant: str = "acme") -> None:
    with store.writing() as writer:
        writer.enrol(tenant, name, [row(seed) for seed in seeds])


def contents(store: Store) -> dict[str, list[bytes]]:
    """Active rows by subject of all tenants."""
    found: dict[str, list[bytes]] = {}
    for batch in store.active():
        for one in batch:
            name = store.name(one.uid)
            assert name is not None
            found.setdefault(name, []).append(one.row)
    return {name: sorted(rows) for name, rows in found.items()}


def photo(seed: int, kind: str = "PNG") -> bytes:
    """An aligned crop as a file; the same seed is the same person."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    picture = np.kron(coarse, np.ones((16, 16, 1), np.uint8))  # with edges: smooth pictures are refused as blurred
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind)
    return stream.getvalue()


def new_service(folder: Path, protector: Protector | None = None, **more: object) -> FaceService:
    """Of plain templates and a random network; a threshold so high that a picture matches itself alone."""
    protector = protector or fitted("identity-feature", faces(4, 9))
    place = folder / "gallery.db"
    if place.exists():
        store = Store.open(place, folder / "keys.db", key_of())
    else:
        store = Store.create(place, folder / "keys.db", key_of(), maker_of(protector))
    settings: dict[str, object] = {"threshold": 0.97, "aligned": True}
    service = FaceService(store, protector, **{**settings, **more})  # type: ignore[arg-type]
    service.load()
    return service


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The address of a fresh PostgreSQL: `BAUTA_TEST_POSTGRES`, or a server started here for as long as it is used."""
    if address := os.environ.get("BAUTA_TEST_POSTGRES"):
        yield address
        return
    if not (POSTGRES / "initdb").is_file():
        pytest.skip(f"no PostgreSQL: {POSTGRES} is not there, and BAUTA_TEST_POSTGRES is not set")
    as_user: list[str] = []
    if os.geteuid() == 0:  # which PostgreSQL refuses
        if not shutil.which("setpriv"):
            pytest.skip("PostgreSQL does not run as root, and setpriv is not there")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        shutil.chown(folder, "postgres", "postgres")
    data = folder / "pg"

    def do(*command: str) -> None:
        subprocess.run([*as_user, *command], check=True, capture_output=True, cwd=folder, timeout=120)

    do(str(POSTGRES / "initdb"), "-D", str(data), "-A", "trust", "-U", "bauta", "--no-sync")
    options = f"-k {folder} -c listen_addresses=''"
    do(str(POSTGRES / "pg_ctl"), "-D", str(data), "-w", "-o", options, "-l", str(folder / "pg.log"), "start")
    try:
        yield f"postgresql://bauta@/postgres?host={folder}"
    finally:
        do(str(POSTGRES / "pg_ctl"), "-D", str(data), "-w", "-m", "immediate", "stop")
