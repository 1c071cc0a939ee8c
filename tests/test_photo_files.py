from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from bauta.errors import OutputError, OutputExists, UnreadablePhoto
from bauta.files import make_folder, write_atomically
from bauta.photo import find_photos, read_photo, why_passed_over
from photo_builders import encode, scene


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "original.png"
    path.write_bytes(encode(scene(), "PNG"))
    return read_photo(path)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_saving_writes_one_file(photo, tmp_path):
    photo.save(tmp_path / "ut.png")
    assert sorted(contents(tmp_path)) == ["original.png", "ut.png"]
    np.testing.assert_array_equal(read_photo(tmp_path / "ut.png").pixels, photo.pixels)


def test_new_files_have_ordinary_permissions(tmp_path):
    old = os.umask(0o022)
    try:
        write_atomically(tmp_path / "a", b"1")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


@pytest.fixture
def umask_022():
    old = os.umask(0o022)
    yield
    os.umask(old)


def mode(path):
    return path.stat().st_mode & 0o777


@pytest.mark.usefixtures("umask_022")
@pytest.mark.parametrize(
    ("original", "product"),
    [(0o600, 0o600), (0o640, 0o640), (0o644, 0o644), (0o666, 0o644), (0o400, 0o600), (0o755, 0o644), (0o604, 0o604)],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_product_is_no_more_open_than_its_original(photo, tmp_path, original, product, overwrite):
    photo.path.chmod(original)
    if overwrite:
        (tmp_path / "out.png").write_bytes(b"wide open")
    photo.save(tmp_path / "out.png", overwrite=overwrite)
    assert mode(tmp_path / "out.png") == product


@pytest.mark.usefixtures("umask_022")
def test_a_product_is_closed_from_its_first_moment(photo, tmp_path, monkeypatch):
    photo.path.chmod(0o600)
    seen = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(os.fstat(descriptor).st_mode & 0o777))
    photo.save(tmp_path / "out.png")
    assert seen == [0o600]


@pytest.mark.usefixtures("umask_022")
@pytest.mark.parametrize(
    ("sources", "made"),
    [([0o700], 0o700), ([0o755], 0o755), ([0o755, 0o700], 0o700), ([0o750, 0o705], 0o700), ([], 0o755)],
)
def test_a_folder_is_no_more_open_than_the_originals(tmp_path, sources, made):
    folders = []
    for number, each in enumerate(sources):
        folders.append(tmp_path / f"in{number}")
        folders[-1].mkdir(mode=each)
    make_folder(tmp_path / "out" / "deep", like=folders)
    assert mode(tmp_path / "out") == mode(tmp_path / "out" / "deep") == made


@pytest.mark.usefixtures("umask_022")
def test_a_folder_that_is_there_stays_as_it_is(tmp_path):
    for name, bits in (("in", 0o700), ("out", 0o755)):
        (tmp_path / name).mkdir(mode=bits)
    make_folder(tmp_path / "out", like=[tmp_path / "in"])
    assert mode(tmp_path / "out") == 0o755
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="exists"):
        make_folder(tmp_path / "file", like=[tmp_path / "in"])


def test_an_existing_file_is_kept_unless_overwriting(photo, tmp_path):
    target = tmp_path / "taken.png"
    target.write_bytes(b"mine")
    with pytest.raises(OutputExists, match="taken"):
        photo.save(target)
    assert target.read_bytes() == b"mine"
    photo.save(target, overwrite=True)
    assert read_photo(target).format == "PNG"
    assert sorted(contents(tmp_path)) == ["original.png", "taken.png"]


def spellings(path):
    folder = path.parent
    (folder / "soft.png").symlink_to(path)
    (folder / "hard.png").hardlink_to(path)
    (folder / "sub").mkdir()
    (folder / "loop").symlink_to(folder)
    return {
        "itself": path,
        "symbolic link": folder / "soft.png",
        "hard link": folder / "hard.png",
        "dots": folder / "sub" / ".." / path.name,
        "linked folder": folder / "loop" / path.name,
    }


@pytest.mark.parametrize("name", ["itself", "symbolic link", "hard link", "dots", "linked folder"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_original_is_never_replaced(photo, name, overwrite):
    target = spellings(photo.path)[name]
    before = photo.path.read_bytes()
    with pytest.raises(OutputExists, match="original"):
        photo.save(target, overwrite=overwrite)
    assert photo.path.read_bytes() == before
    assert not list(photo.path.parent.glob("*.part"))


def test_a_dangling_link_is_a_taken_name(photo, tmp_path):
    link = tmp_path / "link.png"
    link.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(OutputExists):
        photo.save(link)
    assert not (tmp_path / "elsewhere.png").exists()


def test_overwriting_a_link_leaves_its_target(photo, tmp_path):
    other, link = tmp_path / "other.png", tmp_path / "link.png"
    other.write_bytes(b"other")
    link.symlink_to(other)
    photo.save(link, overwrite=True)
    assert other.read_bytes() == b"other"
    assert not link.is_symlink()


def test_a_folder_as_destination(photo, tmp_path):
    (tmp_path / "folder.png").mkdir()
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="folder"):
            photo.save(tmp_path / "folder.png", overwrite=overwrite)


def test_a_missing_folder(photo, tmp_path):
    with pytest.raises(OutputError, match="No such file") as caught:
        photo.save(tmp_path / "missing" / "out.png")
    assert caught.value.exit_code == 5
    assert "folder" in caught.value.hint


def test_a_file_in_place_of_the_folder(photo, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        photo.save(tmp_path / "file" / "out.png")


def test_a_name_that_is_too_long(photo, tmp_path):
    with pytest.raises(OutputError):
        photo.save(tmp_path / ("x" * 300 + ".png"))
    assert sorted(contents(tmp_path)) == ["original.png"]


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EIO, "Input/output error"),
    ],
    ids=["full", "quota", "broken"],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_or_broken_disk(photo, tmp_path, monkeypatch, failure, overwrite):
    target = tmp_path / "out.png"
    if overwrite:
        target.write_bytes(b"before")
    before = contents(tmp_path)

    def fail(descriptor):
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match=failure.strerror):
        photo.save(target, overwrite=overwrite)
    assert contents(tmp_path) == before


def test_a_read_only_folder(photo, tmp_path, monkeypatch):
    real_open = os.open

    def refuse(path, flags, *arguments, **options):
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real_open(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        photo.save(tmp_path / "out.png")
    assert sorted(contents(tmp_path)) == ["original.png"]


def test_an_interrupt_leaves_no_half_file(photo, tmp_path, monkeypatch):
    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        photo.save(tmp_path / "out.png")
    assert sorted(contents(tmp_path)) == ["original.png"]


def test_a_name_taken_while_we_write_is_respected(tmp_path, monkeypatch):
    target, real_fsync = tmp_path / "out", os.fsync

    def another_process(descriptor):
        target.write_bytes(b"theirs")
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", another_process)
    with pytest.raises(OutputExists):
        write_atomically(target, b"ours")
    assert contents(tmp_path) == {"out": b"theirs"}


@pytest.mark.parametrize("taken", [False, True])
def test_file_systems_without_hard_links(tmp_path, monkeypatch, taken):
    target = tmp_path / "out"

    def refuse(source, destination):
        if taken:
            target.write_bytes(b"theirs")
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    if taken:
        with pytest.raises(OutputExists):
            write_atomically(target, b"ours")
    else:
        write_atomically(target, b"ours")
    assert contents(tmp_path) == {"out": b"theirs" if taken else b"ours"}


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(found, folder):
    return [str(path.relative_to(folder)) for path in found.photos]


def test_folders_are_searched_in_natural_order(tmp_path):
    make(
        tmp_path,
        "img10.jpg",
        "img2.JPG",
        "sub/a.heic",
        "sub/deep/b.tiff",
        "notes.txt",
        "Å/ö.webp",
        "img1.png",
    )
    found = find_photos([tmp_path])
    assert names(found, tmp_path) == [
        "img1.png",
        "img2.JPG",
        "img10.jpg",
        "sub/a.heic",
        "sub/deep/b.tiff",
        "Å/ö.webp",
    ]
    assert found.problems == ()


def test_hidden_names_are_passed_over(tmp_path):
    make(tmp_path, "._a.jpg", ".hidden/b.jpg", "c.jpg")
    assert names(find_photos([tmp_path]), tmp_path) == ["c.jpg"]


def test_a_file_named_outright_is_taken_whatever_its_ending(tmp_path):
    make(tmp_path, "scan.dat", ".hidden.jpg")
    assert len(find_photos([tmp_path / "scan.dat", str(tmp_path / ".hidden.jpg")]).photos) == 2


def test_each_file_is_found_once(tmp_path):
    make(tmp_path, "a.jpg", "sub/b.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    (tmp_path / "again").symlink_to(tmp_path / "sub")
    found = find_photos([tmp_path / "a.jpg", tmp_path, tmp_path / "sub", tmp_path / "*.jpg"])
    assert len(found.photos) == 2
    assert tmp_path / "a.jpg" in found.photos
    assert found.problems == ()


def test_links_that_lead_round_end(tmp_path):
    make(tmp_path, "sub/a.jpg")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    assert names(find_photos([tmp_path]), tmp_path) == ["sub/a.jpg"]


def test_patterns(tmp_path):
    make(tmp_path, "a1.jpg", "a2.jpg", "b.jpg", "a.txt", "deep/er/a3.jpg")
    assert names(find_photos([tmp_path / "a*"]), tmp_path) == ["a1.jpg", "a2.jpg"]
    assert names(find_photos([tmp_path / "**" / "*.jpg"]), tmp_path) == [
        "a1.jpg",
        "a2.jpg",
        "b.jpg",
        "deep/er/a3.jpg",
    ]
    assert names(find_photos([tmp_path / "d*"]), tmp_path) == ["deep/er/a3.jpg"]


def test_pictures_that_are_passed_over_are_named(tmp_path):
    others = ["a.jp2", "b.JXL", "c.gif", "d.bmp", "e.psd", "f.CR2", "g.mov", "deep/h.mp4", "i.svg", "j.heics"]
    make(tmp_path, "one.jpg", "two.avif", "three.mpo", "notes.txt", "data.json", "._k.jp2", *others)
    found = find_photos([tmp_path])
    assert names(found, tmp_path) == ["one.jpg", "three.mpo", "two.avif"]
    assert sorted(str(path.relative_to(tmp_path)) for path in found.passed_over) == sorted(others)
    assert found.problems == ()
    for path in found.passed_over:
        error = why_passed_over(path)
        assert str(path) in error.message
        assert error.exit_code == 4
        assert error.hint


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_photos_without_a_photos_name_are_named(tmp_path, format_name):
    (tmp_path / "IMG_0001").write_bytes(encode(scene(), format_name))
    (tmp_path / ".hidden.jpg").write_bytes(encode(scene(), format_name))
    (tmp_path / "README").write_bytes(b"no picture at all, but long enough")
    found = find_photos([tmp_path])
    assert [path.name for path in found.passed_over] == [".hidden.jpg", "IMG_0001"]
    assert all("by its content" in why_passed_over(path).message for path in found.passed_over)


def test_what_is_named_outright_is_not_passed_over(tmp_path):
    make(tmp_path, "a.jp2", "b.jpg")
    found = find_photos([tmp_path, tmp_path / "a.jp2"])
    assert names(found, tmp_path) == ["a.jp2", "b.jpg"]
    assert found.passed_over == ()
    (tmp_path / "b.jpg").unlink()
    assert find_photos([tmp_path]).passed_over == (tmp_path / "a.jp2",)


def test_relative_patterns(tmp_path, monkeypatch):
    make(tmp_path, "a.jpg")
    monkeypatch.chdir(tmp_path)
    assert find_photos(["*.jpg"]).photos == (Path("a.jpg"),)


def test_a_name_that_looks_like_a_pattern_is_a_name_first(tmp_path):
    make(tmp_path, "a[1].jpg", "a1.jpg")
    assert names(find_photos([tmp_path / "a[1].jpg"]), tmp_path) == ["a[1].jpg"]


@pytest.mark.parametrize("what", ["missing.jpg", "no*match", "dangling.jpg", "empty"])
def test_what_cannot_be_found_is_reported_and_the_rest_goes_on(tmp_path, what):
    make(tmp_path, "good.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    found = find_photos([tmp_path / what, tmp_path / "good.jpg"])
    assert names(found, tmp_path) == ["good.jpg"]
    (problem,) = found.problems
    assert isinstance(problem, UnreadablePhoto)
    assert what in problem.message
    assert problem.hint


def test_an_unreadable_folder_is_reported_and_the_rest_goes_on(tmp_path, monkeypatch):
    make(tmp_path, "a.jpg", "locked/b.jpg", "open/c.jpg")
    real_scandir = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_photos([tmp_path])
    assert names(found, tmp_path) == ["a.jpg", "open/c.jpg"]
    (problem,) = found.problems
    assert "locked" in problem.message
    assert "Permission denied" in problem.message
    (only,) = find_photos([tmp_path / "locked"]).problems
    assert "Permission denied" in only.message


def test_a_folder_behind_a_locked_one_is_reported(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_dir", refuse)
    (problem,) = find_photos([tmp_path / "locked" / "sub"]).problems
    assert "Permission denied" in problem.message


def test_nothing_given():
    assert find_photos([]) == find_photos(())


def test_the_room_imports_no_heavy_library():
    import subprocess
    import sys

    heavy = "torch onnx onnxruntime cv2 tifffile pillow_heif dlib"
    code = f"import sys, bauta.photo; print([name for name in {heavy.split()} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")  # there already
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="Cannot write to"):
        make_folder(tmp_path / "file" / "b")
