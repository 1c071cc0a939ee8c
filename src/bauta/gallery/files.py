"""A gallery as one file, sealed, authenticated as a whole, and written whole or not at all. Format 1 (our design)::

    header    258 bytes, not secret: magic, version, id of the gallery, digests of recogniser and protector, data key
              wrapped under the deployment key, number of records, bytes of a row, bytes of the index
    index     sealed: what all rows share (`RowFormat`), then id and name of each record, in order
    records   each sealed: nonce, ciphertext, tag
    seal      HMAC-SHA256 over header, index, and nonce and tag of each record, in order

Reading checks every length before anything is allocated, then the key, the seal, the index and each record, and returns
all of it or nothing. A record takes 28 bytes more than its row, 18 for its id and the length of its name, and its name.

What a thief of the file alone learns: its size, how many faces it holds, how many bytes the names have in all, and
which recogniser and protector made it. What no reader can tell: that the whole file was exchanged for an older copy of
itself, sealed under the same key. Under the new key of `rotate_gallery` older copies do not open.
"""

from __future__ import annotations

import hmac
import os
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bauta.calls import checked
from bauta.errors import (
    BautaError,
    GalleryDamaged,
    GalleryError,
    GalleryVersion,
    OutputError,
    OutputExists,
    UsageError,
)
from bauta.files import PathLike, write_atomically
from bauta.gallery.enrol import Gallery
from bauta.gallery.sealing import (
    ID,
    LONGEST_NAME,
    NONCE,
    OVERHEAD,
    TAG,
    VERSION,
    RecordSealer,
    WrappedKey,
    new_data_key,
    subkey,
)
from bauta.keys import DeploymentKey, ScryptCost
from bauta.templates.representation import Representation, RowFormat

MAGIC = b"\x89BAUTA\r\n"  # a transfer as text breaks it
LARGEST_FILE = 8 << 30  # bytes
LONGEST_FORMAT = 1 << 20  # bytes
LARGEST_PART = (1 << 31) - 64  # bytes of a row or the index: what the library seals at once
SEAL = 32  # bytes

_HEADER = struct.Struct(f">8sH{ID}s32s32s{WrappedKey.SIZE}sQQQ")
_ENTRY = struct.Struct(f">{ID}sH")
_UNSEALED = b'{"__metadata__":{"bauta.representation":'  # how galleries began, after a length of 8 bytes
_RESTORE = "Restore it from a backup."


@dataclass(frozen=True)
class Header:
    """The part of a gallery that is not sealed; it is authenticated with the rest.

    Attributes:
        gallery: Id of the gallery.
        recognizer: SHA-256 of the recogniser, 32 bytes.
        protector: SHA-256 of the protector, 32 bytes.
        key: The wrapped data key.
        count: Number of records.
        row: Bytes of a row.
        index: Bytes of the sealed index.
    """

    gallery: bytes
    recognizer: bytes
    protector: bytes
    key: WrappedKey
    count: int
    row: int
    index: int

    SIZE = _HEADER.size

    def to_bytes(self) -> bytes:
        """`SIZE` bytes, for `from_bytes`."""
        fields = (self.gallery, self.recognizer, self.protector, self.key.to_bytes(), self.count, self.row, self.index)
        return _HEADER.pack(MAGIC, VERSION, *fields)

    @classmethod
    def from_bytes(cls, content: bytes, size: int, origin: str) -> Self:
        """The header at the start of a file.

        Args:
            content: The first `SIZE` bytes, or fewer where there are no more.
            size: Of the whole file.
            origin: What messages call the file.

        Raises:
            GalleryVersion: when it was written by another version, or before galleries were sealed.
            GalleryDamaged: when it is not a gallery, or the lengths do not add up to its size.
        """
        if content[8 : 8 + len(_UNSEALED)] == _UNSEALED:
            raise GalleryVersion(
                f"{origin} was written before galleries were sealed.",
                hint=f"`bauta templates upgrade {origin} -o gallery.bauta --key deployment.key` reads it once.",
            )
        if content[: len(MAGIC)] != MAGIC:
            raise GalleryDamaged(f"{origin} is not a gallery.", hint="`bauta templates protect` makes one.")
        if len(content) < cls.SIZE:
            raise _torn(origin)
        _, version, gallery, recognizer, protector, key, count, row, index = _HEADER.unpack(content)
        if version != VERSION:
            raise GalleryVersion(
                f"{origin} has version {version} of the format; this Bauta reads {VERSION}.", hint="Update Bauta."
            )
        least, most = (OVERHEAD + 4 + count * (_ENTRY.size + name) for name in (1, LONGEST_NAME))
        if not (count and 0 < row <= LARGEST_PART and least <= index <= min(most + LONGEST_FORMAT, LARGEST_PART)):
            raise _torn(origin)
        if cls.SIZE + index + count * (OVERHEAD + row) + SEAL != size:
            raise _torn(origin)
        return cls(gallery, recognizer, protector, WrappedKey.from_bytes(key), count, row, index)


def require_free(path: Path, *, overwrite: bool = False) -> None:
    """Let the path of a gallery through at which nothing is lost.

    Raises:
        UsageError: when it has the ending of galleries from before they were sealed.
        OutputError: when it is a folder, or in one that does not exist.
        OutputExists: when there is a file that is not to be replaced, or that is not a gallery.
    """
    if path.suffix == ".safetensors":
        raise UsageError(
            f"{path} would not be a safetensors file: galleries are sealed.",
            hint="Give another ending, as gallery.bauta.",
        )
    if path.is_dir():
        raise OutputError(f"{path} is a folder.", hint="Name a file inside it.")
    if not path.parent.is_dir():
        raise OutputError(f"The folder {path.parent} does not exist.", hint="Make it first.")
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise OutputExists(f"{path} exists already.", hint="Give another file, or --overwrite.")
    if not is_gallery(path):
        raise OutputExists(f"{path} is not a gallery, and only a gallery is replaced.", hint="Give another file.")


def is_gallery(path: Path) -> bool:
    """Whether a file begins as a gallery does, sealed or from before they were; False where it cannot be read."""
    try:
        with path.open("rb") as stream:
            begin = stream.read(8 + len(_UNSEALED))
    except OSError:
        return False
    return begin.startswith(MAGIC) or begin[8:] == _UNSEALED


@checked
def write_gallery(
    path: PathLike, gallery: Gallery, key: DeploymentKey, *, overwrite: bool = False, cost: ScryptCost | None = None
) -> str:
    """Seal a gallery under a deployment key and write it as one file, whole or not at all.

    Args:
        path: The file.
        gallery: Faces and names.
        key: Seals it. Without it nothing in the file can be read again.
        overwrite: Replace a gallery that is there.
        cost: Of scrypt, for a passphrase.

    Returns:
        The id of its data key, 32 hexadecimal digits: random, and new each time.

    Raises:
        OutputExists: when the file is there already, or is not a gallery.
        OutputError: when it cannot be written; the gallery that was there is untouched.
    """
    path = Path(path)
    require_free(path, overwrite=overwrite)
    content = seal_gallery(gallery, key, cost)
    write_atomically(path, content, overwrite=overwrite)
    return key_id(content)


@checked
def read_gallery(path: PathLike, key: DeploymentKey) -> Gallery:
    """The gallery in a file: all of it, or an error.

    Raises:
        WrongKey: when it is sealed under another key or passphrase.
        GalleryDamaged: when it is torn, edited, put together from others, or not a gallery.
        GalleryVersion: when another version wrote it, or one from before galleries were sealed.
        GalleryError: when it cannot be read.
    """
    return open_gallery(_read(Path(path)), key, str(path))


@checked
def rotate_gallery(
    path: PathLike, key: DeploymentKey, new_key: DeploymentKey, *, cost: ScryptCost | None = None
) -> str:
    """Seal a gallery under another key, in place: a fresh data key, every record sealed again, nobody enrolled again.

    The new file is opened and compared before it takes the old one's place. Copies of the old file still open under the
    old key: destroy it.

    Args:
        path: The file.
        key: Under which it is sealed.
        new_key: Under which it is to be sealed.
        cost: Of scrypt, for a passphrase.

    Returns:
        The new key id.

    Raises:
        UsageError: when both keys are one.
        GalleryError: as `read_gallery`; the file is untouched.
        OutputError: when it cannot be written; the file is untouched.
    """
    if key.same_as(new_key):
        raise UsageError(
            "The new key is the old one: whoever has it would open the old copies and the new gallery alike.",
            hint="Make another: `bauta key -o new.key`.",
        )
    gallery = read_gallery(path, key)
    content = seal_gallery(gallery, new_key, cost)
    again = open_gallery(content, new_key, str(path))
    if (again.names, again.representation.rows()) != (gallery.names, gallery.representation.rows()):
        raise GalleryError(f"What was sealed again differs from {path}, which is untouched.", hint="Check the memory.")
    write_atomically(Path(path), content, overwrite=True)
    return key_id(content)


def key_id(content: bytes) -> str:
    """The id of the data key of a sealed gallery."""
    return Header.from_bytes(content[: Header.SIZE], len(content), "The gallery").key.key_id.hex()


def seal_gallery(gallery: Gallery, key: DeploymentKey, cost: ScryptCost | None = None) -> bytes:
    """A gallery as the content of a file, under a fresh data key; see `write_gallery`.

    Raises:
        UsageError: when it is larger than `read_gallery` reads.
    """
    form, rows = gallery.representation.format, gallery.representation.rows()
    data_key = new_data_key()
    makers = bytes.fromhex(form.recognizer_sha256), bytes.fromhex(form.protector_sha256)
    index = _index(form, gallery)
    size = Header.SIZE + len(index) + OVERHEAD + len(rows) * (OVERHEAD + form.bytes_each) + SEAL
    if size > LARGEST_FILE or max(form.bytes_each, len(index)) > LARGEST_PART - OVERHEAD:
        raise UsageError(
            f"The gallery would take {size >> 20} MiB, which is more than a file may have.", hint="Make several of it."
        )
    wrapped = WrappedKey.wrap(data_key, key, gallery.id, cost)
    header = Header(gallery.id, *makers, wrapped, len(rows), form.bytes_each, len(index) + OVERHEAD).to_bytes()
    nonce = secrets.token_bytes(NONCE)
    sealed_index = nonce + AESGCM(subkey(data_key, gallery.id, "index")).encrypt(nonce, index, header)
    sealer = RecordSealer(data_key, gallery.id, *makers)
    named = zip(gallery.records, gallery.names, rows, strict=True)
    records = [sealer.seal(sealer.header(record, name), row) for record, name, row in named]
    seal = _seal(data_key, gallery.id, [header, sealed_index, *_ends(records)])
    return b"".join([header, sealed_index, *records, seal])


def open_gallery(content: bytes, key: DeploymentKey, origin: str = "The gallery") -> Gallery:
    """What `seal_gallery` sealed; see `read_gallery`."""
    view = memoryview(content)
    header = Header.from_bytes(content[: Header.SIZE], len(content), origin)
    data_key = header.key.unwrap(key, header.gallery, origin)
    start, each = Header.SIZE + header.index, OVERHEAD + header.row
    sealed_index = view[Header.SIZE : start]
    records = [view[place : place + each] for place in range(start, len(content) - SEAL, each)]
    seal = _seal(data_key, header.gallery, [view[: Header.SIZE], sealed_index, *_ends(records)])
    if not hmac.compare_digest(seal, view[-SEAL:]):
        raise GalleryDamaged(
            f"{origin} was changed since it was sealed: edited, torn, or put together from several.", hint=_RESTORE
        )
    try:
        cipher = AESGCM(subkey(data_key, header.gallery, "index"))
        index = cipher.decrypt(sealed_index[:NONCE], sealed_index[NONCE:], content[: Header.SIZE])
    except InvalidTag as error:
        raise GalleryDamaged(f"The index of {origin} was changed since it was sealed.", hint=_RESTORE) from error
    try:
        form, ids, names = _read_index(index, header.count)
        makers = bytes.fromhex(form.recognizer_sha256), bytes.fromhex(form.protector_sha256)
        if (*makers, form.bytes_each) != (header.recognizer, header.protector, header.row):
            raise ValueError
        sealer = RecordSealer(data_key, header.gallery, *makers)
        named = zip(ids, names, records, strict=True)
        rows = [sealer.open(sealer.header(record, name), sealed) for record, name, sealed in named]
        return Gallery(Representation.from_rows(form, rows), names, header.gallery, ids)
    except GalleryError as error:
        raise GalleryDamaged(f"{origin}: {error.message}", hint=error.hint) from error
    except (BautaError, ValueError, struct.error) as error:  # sealed by who has the key, and not by this code
        raise GalleryDamaged(f"What is sealed in {origin} is not a gallery of this version.", hint=_RESTORE) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > LARGEST_FILE:
                raise GalleryError(f"{path} is larger than {LARGEST_FILE >> 30} GiB.", hint="Is it the right file?")
            begin = stream.read(Header.SIZE)
            Header.from_bytes(begin, size, str(path))  # before anything is read by the lengths in it
            return begin + stream.read(size - len(begin) + 1)
    except OSError as error:
        raise GalleryError(f"{path} cannot be read: {error.strerror or error}.", hint="Check the name.") from error


def _index(form: RowFormat, gallery: Gallery) -> bytes:
    about = form.to_json().encode()
    if len(about) > LONGEST_FORMAT:
        raise UsageError(f"{form.protector} stores rows of too many channels.", hint="Use another protector.")
    names = [name.encode("utf-8", "surrogateescape") for name in gallery.names]
    entries = (_ENTRY.pack(record, len(name)) + name for record, name in zip(gallery.records, names, strict=True))
    return struct.pack(">I", len(about)) + about + b"".join(entries)


def _read_index(index: bytes, count: int) -> tuple[RowFormat, tuple[bytes, ...], tuple[str, ...]]:
    (length,) = struct.unpack_from(">I", index)
    place = 4 + length
    form = RowFormat.from_json(index[4:place])
    ids, names = [], []
    for _ in range(count):
        record, length = _ENTRY.unpack_from(index, place)
        place += _ENTRY.size
        ids.append(record)
        names.append(index[place : place + length].decode("utf-8", "surrogateescape"))
        place += length
    if place != len(index):
        raise ValueError("the index has another length")
    return form, tuple(ids), tuple(names)


def _ends(records: list[bytes] | list[memoryview]) -> list[bytes | memoryview]:
    """Nonce and tag of each record: they stand for the ciphertext between them, which the tag authenticates."""
    return [end for record in records for end in (record[:NONCE], record[-TAG:])]


def _seal(data_key: bytes, gallery: bytes, parts: list[bytes | memoryview]) -> bytes:
    return hmac.digest(subkey(data_key, gallery, "file"), b"".join(parts), "sha256")


def _torn(origin: str) -> GalleryDamaged:
    return GalleryDamaged(f"{origin} is torn: its header and its size do not agree.", hint=_RESTORE)
