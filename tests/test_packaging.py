"""The wheel holds what it needs and nothing else, and works in an environment that never saw the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import bauta
from bauta.cloaking.outcomes import FRAGILE, WEAK

ROOT = Path(__file__).resolve().parent.parent
PACKAGE_DATA = (
    "bauta/benchmark/page.html.j2",
    "bauta/benchmark/recipes/lfw.toml",
    "bauta/benchmark/recipes/smoke.toml",
    "bauta/benchmark/report.html.j2",
    "bauta/benchmark/tables.html.j2",
    "bauta/benchmark/template_recipes/advface.toml",
    "bauta/benchmark/template_report.html.j2",
    "bauta/benchmark/trade_off.svg.j2",
    "bauta/cloaks/composites.json",
    "bauta/cloaks/composites.png",
    "bauta/cloaking/report.html.j2",
    "bauta/cloaking/report.js",
    "bauta/faces/shipped/face_mesh.onnx",
    "bauta/faces/shipped/face_mesh.toml",
    "bauta/faces/shipped/NOTICE",
    "bauta/recognizers/pullable/sface.toml",
    "bauta/recognizers/shipped/chip_resnet.safetensors",
    "bauta/recognizers/shipped/chip_resnet.toml",
    "bauta/recognizers/shipped/mobilefacenet.safetensors",
    "bauta/recognizers/shipped/mobilefacenet.toml",
    "bauta/recognizers/shipped/mobilenet.safetensors",
    "bauta/recognizers/shipped/mobilenet.toml",
    "bauta/recognizers/shipped/NOTICE",
    "bauta/recognizers/thresholds.json",
    "bauta/templates/shipped/advface-mobilefacenet/card.toml",
    "bauta/templates/shipped/advface-mobilefacenet/parts.safetensors",
    "bauta/templates/shipped/hybrid-mobilefacenet/card.toml",
    "bauta/templates/shipped/hybrid-mobilefacenet/parts.safetensors",
    "bauta/templates/shipped/local-features-mobilefacenet/card.toml",
    "bauta/templates/shipped/local-features-mobilefacenet/parts.safetensors",
    "bauta/web/page.html.j2",
    "bauta/web/static/page.css",
    "bauta/web/static/page.js",
    "bauta/web/texts/de.json",
    "bauta/web/texts/en.json",
    "bauta/py.typed",
)
# What a CUDA build of torch brings along; constraints.txt is about the CPU build.
CUDA = ("nvidia-", "cuda-", "triton")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def run(*command: str | Path, cwd: Path, codes: tuple[int, ...] = (0,), **environment: str) -> str:
    """Standard output of a command that knows nothing of the repository and of this machine's recognisers."""
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BAUTA", "VIRTUAL"))
    }
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**variables, **environment}, capture_output=True, text=True
    )
    assert done.returncode in codes, f"{command} left with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Machine:
    """An environment with Bauta installed, and a folder of photos far from the repository."""

    def __init__(self, environment: Path, folder: Path) -> None:
        self.binaries = environment / ("Scripts" if os.name == "nt" else "bin")
        self.folder = folder
        folder.mkdir()

    def __call__(self, command: str, *arguments: str | Path, codes: tuple[int, ...] = (0,)) -> str:
        home = str(self.folder / "home")
        return run(self.binaries / command, *arguments, cwd=self.folder, codes=codes, BAUTA_HOME=home)


def check(machine: Machine, environment: Path) -> None:
    """What a person does first after installing."""
    place = machine("python", "-c", "import bauta; print(bauta.__file__)").strip()
    assert Path(place).resolve().is_relative_to(environment.resolve())
    assert machine("bauta", "--version").strip() == f"bauta {bauta.__version__}"
    assert "tip-im" in machine("bauta", "methods")
    listed = machine("bauta", "recognizers", "list")
    assert "dlib_resnet" in listed
    assert "chip_resnet" in listed
    data = pytest.importorskip("skimage.data", reason="scikit-image carries the portrait")
    Image.fromarray(data.astronaut()).resize((256, 256)).save(machine.folder / "photo.jpg", quality=92)
    made = (0, WEAK, FRAGILE)
    machine("bauta", "protect", "photo.jpg", "-o", "out", "--steps", "2", codes=made)
    # This mode reads the composite targets, which travel in the wheel.
    machine("bauta", "protect", "photo.jpg", "-o", "out", "--steps", "1", "--mode", "combined", codes=made)
    written = {path.name for path in (machine.folder / "out").rglob("*.*") if ".bauta" not in path.parts}
    assert written == {"photo.jpg", "photo.report.html", "photo.report.json"}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    described = f"bauta-{bauta.__version__}.dist-info/"
    packaged = {name for name in names if not name.startswith(described)}
    source = ROOT / "src"
    files = (path for path in (source / "bauta").rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert packaged == {path.relative_to(source).as_posix() for path in files}
    assert packaged.issuperset(PACKAGE_DATA)
    assert {f"{described}METADATA", f"{described}entry_points.txt", f"{described}licenses/LICENSE"} <= names


def test_the_wheel_works_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=os.name != "nt")
    machine = Machine(environment, tmp_path / "photos")
    python = machine.binaries / "python"
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel),
        cwd=tmp_path,
        PIP_DISABLE_PIP_VERSION_CHECK="1",
    )
    # Dependencies are borrowed from here only now: pip would find a Bauta among them and install nothing.
    # A .pth file's folders come last, and .pth files inside them, such as an editable Bauta's, are not read.
    purelib = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (purelib / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n", encoding="utf-8")
    check(machine, environment)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True, symlinks=os.name != "nt")
    machine = Machine(environment, tmp_path / "photos")
    install = ("-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", ROOT / "constraints.txt")
    machine("python", *install, "torch")
    machine("python", *install, wheel)
    machine("python", "-m", "pip", "check")
    check(machine, environment)


# Pins


def project() -> dict[str, Any]:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    table: dict[str, Any] = content["project"]
    return table


def requirements() -> list[Requirement]:
    groups = [project()["dependencies"], *project()["optional-dependencies"].values()]
    return [one for group in groups for one in map(Requirement, group) if one.name != "bauta"]


def pins() -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    found = [line.split("==") for line in lines if line]
    return {canonicalize_name(name): version for name, version in found}


@pytest.mark.parametrize("requirement", [pytest.param(one, id=str(one)) for one in requirements()])
def test_every_requirement_has_a_pin_in_its_range(requirement: Requirement) -> None:
    version = pins().get(canonicalize_name(requirement.name))
    assert version is not None, "it has no pin in constraints.txt"
    assert requirement.specifier.contains(version, prereleases=True)


def test_what_requirements_require_has_pins_too() -> None:
    assert sorted(set(closure(requirements())) - pins().keys()) == []


def closure(wanted: list[Requirement]) -> Iterator[str]:
    """Names of everything that the requirements bring along here, directly or not."""
    waiting, seen = [(one, extra) for one in wanted for extra in ("", *one.extras)], set()
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen or name.startswith(CUDA):
            continue
        seen.add((name, extra))
        yield name
        for inner in map(Requirement, metadata.distribution(name).requires or ()):
            if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                waiting += [(inner, more) for more in ("", *inner.extras)]
