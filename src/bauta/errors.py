"""Every error Bauta raises on purpose, its stable code, and the exit code the command line gives it.

::

    BautaError                    1  failed                            anything of ours that has no better name
    ├── InternalError             1  internal                          a defect in Bauta, or a process that was killed
    ├── InvalidEdit               1  method                            a method that answers with no edit
    ├── UsageError                2  usage                             options or configuration that make no sense
    │   └── MissingExtra             usage.missing-extra               a package of an optional extra is not installed
    ├── NoFaceFound               3  no-face                           a readable photo in which no face was found
    ├── PhotoError                4  photo                             a photo that cannot be read
    │   ├── UnreadablePhoto          photo.unreadable                  truncated, empty, corrupt, or not an image
    │   ├── UnsupportedPhoto         photo.unsupported                 an image of a kind Bauta does not protect
    │   ├── PoorPhoto                photo.poor                        a face too small, blurred or turned, or several
    │   └── PhotoTooLarge            photo.too-large                   over the pixel limit (decompression bombs)
    ├── OutputError               5  output                            a result that cannot be written
    │   └── OutputExists             output.exists                     the destination is taken
    ├── RecognizerError           6  recognizer                        a recogniser or detector that cannot be used
    │   ├── UnknownRecognizer        recognizer.unknown                no card of that name
    │   ├── WeightsMissing           recognizer.weights-missing        the card names a file that is not there
    │   ├── WeightsCorrupt           recognizer.weights-corrupt        wrong hash, format, or content
    │   ├── UnsupportedOperator      recognizer.unsupported-operator   the importer does not know an operator
    │   ├── RoleRefused              recognizer.role-refused           a judge as surrogate, or one network as both
    │   ├── NotCalibrated            recognizer.not-calibrated         no threshold is stored for this recogniser
    │   ├── NumericalFailure         recognizer.numerical-failure      a network answered with NaN or infinity
    │   └── LimitExceeded            recognizer.limit-exceeded         a network took more time or memory than it may
    ├── GalleryError              9  gallery                           a gallery that cannot be read
    │   ├── WrongKey                 gallery.wrong-key                 another key than the one it is sealed under
    │   ├── GalleryDamaged           gallery.damaged                   torn, edited, or no gallery at all
    │   ├── GalleryVersion           gallery.version                   of another version, or from before sealing
    │   ├── OtherMaker               gallery.other-maker               made with another recogniser or protector
    │   ├── SubjectUnknown           gallery.unknown-subject           nobody of that name is enrolled
    │   ├── AlreadyEnrolled          gallery.already-enrolled          the face is enrolled under another name
    │   ├── OtherRequest             gallery.other-request             an idempotency key that was used for another
    │   ├── TooMany                  gallery.too-many                  so many that a stranger would be taken for one
    │   └── BudgetSpent              gallery.budget-spent              more would be released of a person than may be
    └── PeerError                10  peer                              the other side of an encrypted match went wrong
        ├── PeerRefused              peer.refused                      it refused, and said why
        └── ServiceRefused           peer.service                      a face service refused, over HTTP

Codes stay as they are once released: programs may rely on them, and ``photo.`` begins every kind of `PhotoError`.
Messages may be reworded at any time. Exit codes 7 and 8 are verdicts of `bauta.judging.findings`, not errors.
Every message says what is wrong, and `hint` says what to do next.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar


class BautaError(Exception):
    """Anything that Bauta raises on purpose and that has no better name.

    Args:
        message: What is wrong, naming the file or the option.
        hint: What to do next, one sentence.
    """

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "failed"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InternalError(BautaError):
    """A defect in Bauta, or a worker process that ended before its work was done."""

    code = "internal"


class InvalidEdit(BautaError):
    """A method answered with something that is not an edit of the view it was shown; the message names its package."""

    code = "method"


class UsageError(BautaError):
    """Options or configuration values that make no sense, alone or together."""

    exit_code = 2
    code = "usage"


class MissingExtra(UsageError):
    """What was asked for needs packages that `pip install bauta` leaves out; the hint says which extra brings them."""

    code = "usage.missing-extra"


class NoFaceFound(BautaError):
    """The photo was read, but no face was found in it or none was selected."""

    exit_code = 3
    code = "no-face"


class PhotoError(BautaError):
    """A photo that cannot be read."""

    exit_code = 4
    code = "photo"


class UnreadablePhoto(PhotoError):
    """The file is truncated, empty, corrupt, or no image at all."""

    code = "photo.unreadable"


class UnsupportedPhoto(PhotoError):
    """The file is an image of a kind that Bauta does not protect."""

    code = "photo.unsupported"


class PoorPhoto(PhotoError):
    """The face is too small, blurred or turned to be enrolled or compared, or there is more than one."""

    code = "photo.poor"


class PhotoTooLarge(PhotoError):
    """The image has more pixels than the limit allows."""

    code = "photo.too-large"


class OutputError(BautaError):
    """A result could not be written; what was there before is untouched."""

    exit_code = 5
    code = "output"


class OutputExists(OutputError):
    """The destination is taken, or is one of the originals."""

    code = "output.exists"


class RecognizerError(BautaError):
    """A recogniser or a detector cannot be used."""

    exit_code = 6
    code = "recognizer"


class UnknownRecognizer(RecognizerError):
    """No card of that name is known."""

    code = "recognizer.unknown"


class WeightsMissing(RecognizerError):
    """A card names weights that are not there."""

    code = "recognizer.weights-missing"


class WeightsCorrupt(RecognizerError):
    """Weights with the wrong hash, in the wrong format, or holding what is not allowed."""

    code = "recognizer.weights-corrupt"


class UnsupportedOperator(RecognizerError):
    """An ONNX graph uses an operator or an attribute the importer does not know."""

    code = "recognizer.unsupported-operator"


class RoleRefused(RecognizerError):
    """A network was asked to play a part its card forbids, or two parts at once."""

    code = "recognizer.role-refused"


class NotCalibrated(RecognizerError):
    """No decision threshold is stored for this recogniser at this FMR."""

    code = "recognizer.not-calibrated"


class NumericalFailure(RecognizerError):
    """A network answered with NaN or infinity."""

    code = "recognizer.numerical-failure"


class LimitExceeded(RecognizerError):
    """A network took more time or memory than it may, and was stopped."""

    code = "recognizer.limit-exceeded"


class GalleryError(BautaError):
    """A gallery cannot be read; nothing in it was used."""

    code = "gallery"
    exit_code = 9


class WrongKey(GalleryError):
    """The key or passphrase is another than the one the gallery is sealed under."""

    code = "gallery.wrong-key"


class GalleryDamaged(GalleryError):
    """A gallery or record that is torn, edited or put together from others, or that is not one at all."""

    code = "gallery.damaged"


class GalleryVersion(GalleryError):
    """A gallery that was written by another version of Bauta, or before galleries were sealed."""

    code = "gallery.version"


class OtherMaker(GalleryError):
    """A gallery was made with another recogniser or protector than the one that is to read it."""

    code = "gallery.other-maker"


class SubjectUnknown(GalleryError):
    """Nobody of that name is enrolled, or nobody any more."""

    code = "gallery.unknown-subject"


class AlreadyEnrolled(GalleryError):
    """The face is enrolled under another name; nothing was stored."""

    code = "gallery.already-enrolled"


class OtherRequest(GalleryError):
    """An idempotency key that was used for another request; nothing was done."""

    code = "gallery.other-request"


class TooMany(GalleryError):
    """So many are enrolled that a search would take strangers for some of them too often."""

    code = "gallery.too-many"


class BudgetSpent(GalleryError):
    """More would be released of a person than the gallery's budget allows; nothing was stored."""

    code = "gallery.budget-spent"


class PeerError(BautaError):
    """The other side of an encrypted match is gone, too slow, or sent what does not follow; nothing was decided."""

    code = "peer"
    exit_code = 10


class PeerRefused(PeerError):
    """The other side refused, and said why."""

    code = "peer.refused"


class ServiceRefused(PeerError):
    """A face service refused, over HTTP.

    Args:
        message: What is wrong.
        hint: What to do next.
        status: HTTP's.
        kind: The service's own code, as ``gallery.unknown-subject``.
    """

    code = "peer.service"

    def __init__(self, message: str, *, hint: str = "", status: int = 0, kind: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status, self.kind = status, kind


EXTRAS = {
    "av": "video",
    "dlib": "dlib",
    "face_recognition_models": "dlib",
    "faiss": "search",
    "fastapi": "server",
    "flip_evaluator": "bench",
    "lightning_fabric": "train",
    "onnxscript": "train",
    "psycopg": "server",
    "skimage": "demo",
    "ray": "ray",
    "sqlalchemy": "server",
    "starlette": "web",
    "tenseal": "encrypted",
    "threadpoolctl": "encrypted",
    "uvicorn": "web",
    "uvloop": "server",
}
"""The extra in pyproject.toml that brings a module."""


def missing_extra(*modules: str, what: str = "This") -> MissingExtra:
    """The error that names the extra of modules that are not installed.

    >>> print(missing_extra("dlib", what="dlib_resnet"))
    dlib_resnet needs dlib, which is not installed. pip install "bauta[dlib]"
    """
    are = "is" if len(modules) == 1 else "are"
    return MissingExtra(
        f"{what} needs {' and '.join(modules)}, which {are} not installed.",
        hint=f'pip install "bauta[{EXTRAS[modules[0]]}]"',
    )


def as_bauta_error(error: Exception) -> BautaError:
    """Any exception as one of ours: what the machine refuses is named as that, and anything else is our defect.

    >>> as_bauta_error(MemoryError()).message
    'Memory ran out.'
    >>> as_bauta_error(ZeroDivisionError("oops")).code
    'internal'
    """
    if isinstance(error, BautaError):
        return error
    if isinstance(error, ModuleNotFoundError) and (module := (error.name or "").partition(".")[0]) in EXTRAS:
        return missing_extra(module)
    if isinstance(error, ValueError) and str(error).startswith("embedded null"):
        return UsageError("A file's name holds a zero byte.", hint="Check the name.")
    if isinstance(error, MemoryError):
        return BautaError("Memory ran out.", hint="Make the photo smaller, or close other programs.")
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return BautaError(
            f"{where}{error.strerror}.", hint="Check the file, its permissions and the space on its disk."
        )
    return InternalError(
        f"{type(error).__name__}: {error}",
        hint="This is a defect in Bauta; run again with BAUTA_DEBUG=1 and report what it prints.",
    )


def every_error(of: type[BautaError] = BautaError) -> Iterator[type[BautaError]]:
    """The errors of this module, each before those below it.

    >>> [error.code for error in every_error(PhotoError)]
    ['photo', 'photo.unreadable', 'photo.unsupported', 'photo.poor', 'photo.too-large']
    """
    if of.__module__ == __name__:
        yield of
    for kind in of.__subclasses__():
        yield from every_error(kind)
