"""Every error Bauta raises on purpose, and the exit code the command line gives it.

::

    BautaError                    1  anything of ours that has no better name
    ├── UsageError                2  options or configuration that make no sense together
    ├── NoFaceFound               3  a readable photo in which no face was found
    ├── PhotoError                4  a photo that cannot be read
    │   ├── UnreadablePhoto          truncated, empty, corrupt, or not an image
    │   ├── UnsupportedPhoto         an image, but of a kind Bauta does not protect (animated, exotic mode)
    │   └── PhotoTooLarge            over the pixel limit (decompression bombs end here)
    ├── OutputError               5  a result that cannot be written; nothing was overwritten
    │   └── OutputExists             the destination is taken
    ├── RecognizerError           6  a recogniser or detector that cannot be used
    │   ├── UnknownRecognizer        no card of that name
    │   ├── WeightsMissing           the card names a file that is not there
    │   ├── WeightsCorrupt           wrong hash, wrong format, or content that is not allowed
    │   ├── UnsupportedOperator      an ONNX graph with an operator the importer does not know
    │   ├── RoleRefused              a judge asked for as a surrogate, or one network as both
    │   ├── NotCalibrated            no threshold is stored for this recogniser
    │   └── NumericalFailure         a network answered with NaN or infinity
    └── GalleryError              8  a gallery that cannot be read; nothing in it was used
        ├── WrongKey                 another key or passphrase than the one it is sealed under
        ├── GalleryDamaged           torn, edited, put together from others, or no gallery at all
        └── GalleryVersion           written by another version, or before galleries were sealed

Exit code 7 is no error: the photo was protected, but a judge still recognises a face (`weak`) or a face could
not be given a mask (`partial`).
Every message says what is wrong, and `hint` says what to do next.
"""


class BautaError(Exception):
    """Base of everything Bauta raises on purpose.

    Args:
        message: What is wrong, naming the file or the option.
        hint: What to do next, one sentence.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(BautaError):
    """Options or configuration values that make no sense, alone or together."""

    exit_code = 2


class NoFaceFound(BautaError):
    """The photo was read, but no face was found in it or none was selected."""

    exit_code = 3


class PhotoError(BautaError):
    """A photo that cannot be read."""

    exit_code = 4


class UnreadablePhoto(PhotoError):
    """The file is truncated, empty, corrupt, or no image at all."""


class UnsupportedPhoto(PhotoError):
    """The file is an image of a kind that Bauta does not protect."""


class PhotoTooLarge(PhotoError):
    """The image has more pixels than the limit allows."""


class OutputError(BautaError):
    """A result could not be written; what was there before is untouched."""

    exit_code = 5


class OutputExists(OutputError):
    """The destination is taken, or is one of the originals."""


class RecognizerError(BautaError):
    """A recogniser or a detector cannot be used."""

    exit_code = 6


class UnknownRecognizer(RecognizerError):
    """No card of that name is known."""


class WeightsMissing(RecognizerError):
    """A card names weights that are not there."""


class WeightsCorrupt(RecognizerError):
    """Weights with the wrong hash, in the wrong format, or holding what is not allowed."""


class UnsupportedOperator(RecognizerError):
    """An ONNX graph uses an operator or an attribute the importer does not know."""


class RoleRefused(RecognizerError):
    """A network was asked to play a part its card forbids, or two parts at once."""


class NotCalibrated(RecognizerError):
    """No decision threshold is stored for this recogniser at this FMR."""


class NumericalFailure(RecognizerError):
    """A network answered with NaN or infinity."""


class GalleryError(BautaError):
    """A gallery cannot be read; nothing in it was used."""

    exit_code = 8


class WrongKey(GalleryError):
    """The key or passphrase is another than the one the gallery is sealed under."""


class GalleryDamaged(GalleryError):
    """A gallery or record that is torn, edited or put together from others, or that is not one at all."""


class GalleryVersion(GalleryError):
    """A gallery that was written by another version of Bauta, or before galleries were sealed."""
