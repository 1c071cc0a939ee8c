"""Recognisers that only evaluate: ONNX Runtime and dlib, where no gradient exists.

This module never imports torch, directly or through others; an import-linter contract keeps it so.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bauta.errors import NumericalFailure, UsageError, WeightsCorrupt
from bauta.recognizers.cards import RecognizerCard, require_role, verify_weights
from bauta.recognizers.catalog import find_card

QUIET = 4  # ONNX Runtime's severity of what ends the process


class _Engine(Protocol):
    def __call__(self, crops: NDArray[np.float32]) -> NDArray[np.float32]: ...


class Judge:
    """A recogniser that judges: crops in, embeddings out.

    Attributes:
        card: What it is.
    """

    def __init__(self, card: RecognizerCard, engine: _Engine) -> None:
        self.card = card
        self._engine = engine

    def embed(self, crops: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit-norm embeddings (N, dim) of aligned RGB crops (N, 3, height, width) in [0, 1].

        Raises:
            UsageError: when the crops do not have the shape of the card's template, or the network's output
                does not have the card's dimension.
            NumericalFailure: when the network answers with NaN, infinity, or nothing but zeros.
        """
        card = self.card
        if crops.ndim != 4 or crops.shape[1:] != (3, card.template.height, card.template.width):
            raise UsageError(
                f"{card.name!r} reads crops of shape (N, 3, {card.template.height}, {card.template.width}), "
                f"not {crops.shape}.",
                hint="Align the faces to the card's template.",
            )
        if not len(crops):
            return np.empty((0, card.dim), np.float32)
        features = np.asarray(self._engine(np.asarray(crops, np.float32)), np.float32)
        if features.shape != (len(crops), card.dim):
            raise UsageError(
                f"{card.name!r} answered with shape {features.shape} to {len(crops)} crops.",
                hint=f"The card promises {card.dim} numbers per crop: correct the card or the network.",
            )
        norm = np.linalg.norm(features, axis=1, keepdims=True)
        if not np.isfinite(norm).all():
            raise NumericalFailure(
                f"{card.name!r} answered with NaN or infinity.",
                hint="Check the photo and the weights, or leave this judge out.",
            )
        if not norm.all():  # it would match nobody, and read as protection
            raise NumericalFailure(
                f"{card.name!r} answered with nothing but zeros.",
                hint="Check the card's normalisation and the weights, or leave this judge out.",
            )
        embeddings: NDArray[np.float32] = features / np.maximum(norm, np.float32(1e-12))
        return embeddings


def load_judge(recognizer: str | RecognizerCard, *, threads: int = 1) -> Judge:
    """A recogniser, by name or card, as a judge.

    Args:
        recognizer: Name or card.
        threads: How many threads ONNX Runtime may use; dlib decides for itself.

    Raises:
        UnknownRecognizer: when no card has that name.
        RoleRefused: when its card does not allow the role.
        WeightsMissing: when the weights are not there.
        WeightsCorrupt: when they are not what the card says, or cannot be run.
    """
    card = find_card(recognizer) if isinstance(recognizer, str) else recognizer
    require_role(card, "judge")
    return Judge(card, _dlib_engine(card) if card.format == "dlib" else _onnx_engine(card, threads))


def _onnx_engine(card: RecognizerCard, threads: int) -> _Engine:
    import onnxruntime

    from bauta.recognizers.onnx.graph import read_proto
    from bauta.recognizers.packed import read_model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = QUIET
    options.add_session_config_entry("session.load_model_format", "ONNX")  # else bytes may choose, and dodge the check
    content = read_model(card)
    read_proto(content)
    try:
        onnxruntime.set_default_logger_severity(QUIET)  # what matters is in the error; its own lines have colours
        session: Any = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no base class of their own
        raise _unusable(card, error) from error
    inputs, outputs = len(session.get_inputs()), len(session.get_outputs())
    if (inputs, outputs) != (1, 1):
        raise WeightsCorrupt(
            f"The network of {card.name!r} has {inputs} inputs and {outputs} outputs.",
            hint="A recogniser has one image input and one embedding: export it so.",
        )
    name = session.get_inputs()[0].name
    single = session.get_inputs()[0].shape[:1] == [1]  # exported for one image at a time
    settings = onnxruntime.RunOptions()
    settings.log_severity_level = QUIET
    mean, std = (np.array(value, np.float32).reshape(3, 1, 1) for value in (card.mean, card.std))

    def run(crops: NDArray[np.float32]) -> NDArray[np.float32]:
        image = crops[:, ::-1] if card.colour == "BGR" else crops
        image = (image - mean) / std
        batches = np.split(image, len(image)) if single else [image]
        try:
            return np.concatenate([session.run(None, {name: batch}, settings)[0] for batch in batches])
        except Exception as error:  # as above
            raise _unusable(card, error) from error

    return run


def _dlib_engine(card: RecognizerCard) -> _Engine:
    """dlib's own network, which reads 8-bit chips: crops are rounded to 1/255.

    dlib's rule is a Euclidean distance of at most 0.6 between raw descriptors; Bauta compares all recognisers
    by cosine, with thresholds calibrated for it.
    """
    import dlib

    try:
        model = dlib.face_recognition_model_v1(str(verify_weights(card)))
    except RuntimeError as error:
        raise _unusable(card, error) from error

    def run(crops: NDArray[np.float32]) -> NDArray[np.float32]:
        chips = np.rint(np.clip(crops, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        descriptors = [model.compute_face_descriptor(np.ascontiguousarray(chip)) for chip in chips]
        return np.array(descriptors, np.float32)

    return run


def _unusable(card: RecognizerCard, error: Exception) -> WeightsCorrupt:
    from bauta.recognizers.onnx.graph import reason

    return WeightsCorrupt(
        f"The weights of {card.name!r} cannot be run: {reason(error)}.",
        hint="Fetch the file again, or export it anew.",
    )
