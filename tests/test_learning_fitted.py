"""Fitted files: one file, read strictly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from bauta.errors import OutputExists, UsageError, WeightsCorrupt, WeightsMissing
from bauta.learning.fitted import Fitted, Provenance, _header_text


def fitted(**changes) -> Fitted:
    given = {
        "method": "toy",
        "settings": {"epsilon": 8.0, "movement": [0.0, 0.1], "psnr": None},
        "parts": {"mask": torch.arange(6.0).reshape(2, 3), "order": torch.tensor([2, 0, 1])},
        "teachers": ("one", "two"),
        "provenance": Provenance("3 photos", "mine", 7, (("loss", 0.5),)),
    }
    return Fitted(**(given | changes))


def test_a_file_gives_back_everything(tmp_path: Path):
    one = fitted()
    one.save(tmp_path / "me.mask")
    again = Fitted.load(tmp_path / "me.mask", method="toy", version=1)
    assert again.sha256 == one.sha256
    assert (again.method, again.settings, again.teachers) == (one.method, one.settings, one.teachers)
    assert (again.provenance, again.version) == (one.provenance, 1)
    assert all(torch.equal(again.parts[name], one.parts[name]) for name in one.parts)
    with pytest.raises(OutputExists):
        one.save(tmp_path / "me.mask")
    assert Fitted.load(tmp_path / "me.mask").to_bytes() == one.to_bytes()


def test_the_digest_is_of_everything():
    one = fitted()
    others = [
        fitted(method="other"), fitted(settings={}), fitted(teachers=("one",)), fitted(version=2),
        fitted(provenance=Provenance()), fitted(parts={"mask": one.parts["mask"]}),
        fitted(parts={**one.parts, "mask": one.parts["mask"] + 1e-3}),
    ]  # fmt: skip
    assert len({one.sha256, *(other.sha256 for other in others)}) == 1 + len(others)


def test_another_method_or_version_is_refused_by_name_and_hash(tmp_path: Path):
    one = fitted()
    one.save(tmp_path / "me.mask")
    with pytest.raises(UsageError, match=rf"me\.mask was fitted by toy \({one.sha256[:12]}\), not by other"):
        Fitted.load(tmp_path / "me.mask", method="other")
    with pytest.raises(UsageError, match=rf"me\.mask \({one.sha256[:12]}\) is of version 1 of toy.* version 2"):
        Fitted.load(tmp_path / "me.mask", version=2)


def test_every_changed_byte_is_refused():
    content = fitted().to_bytes()
    for place in range(len(content)):
        for flip in (1, 0x29, 0x80):  # 0x29 makes a tab of a blank
            changed = bytearray(content)
            changed[place] ^= flip
            with pytest.raises((WeightsCorrupt, UsageError)) as caught:
                Fitted.from_bytes(bytes(changed), method="toy", version=1)
            assert caught.value.hint, place


def test_cut_and_lengthened_files_are_refused():
    content = fitted().to_bytes()
    for part in (b"", content[:4], content[:40], content[:-1], content + b"\0"):
        with pytest.raises(WeightsCorrupt):
            Fitted.from_bytes(part)


def test_missing_and_extra_tensors_are_named():
    one = fitted()
    facts = one._facts() | {"parts": sorted(one.parts), "sha256": one.sha256}
    with pytest.raises(WeightsCorrupt, match="lacks the tensors order"):
        Fitted.from_bytes(save({"mask": one.parts["mask"]}, {"bauta": _header_text(facts)}))
    with pytest.raises(WeightsCorrupt, match="not its own: more"):
        Fitted.from_bytes(save({**one.parts, "more": torch.zeros(1)}, {"bauta": _header_text(facts)}))


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ({}, UsageError),
        ({"schema": "bauta.fitted/9"}, UsageError),
        ({"teachers": "one"}, WeightsCorrupt),
        ({"version": True}, WeightsCorrupt),
        ({"more": 1}, WeightsCorrupt),
        ({"sha256": "0" * 64}, WeightsCorrupt),
    ],
)
def test_headers_that_are_none(header, error):
    one = fitted()
    facts = one._facts() | {"parts": sorted(one.parts), "sha256": one.sha256} | header if header else {}
    with pytest.raises(error):
        Fitted.from_bytes(save(dict(one.parts), {"bauta": _header_text(facts)}))


def test_what_is_no_fitted_file(tmp_path: Path):
    with pytest.raises(WeightsMissing, match="nowhere"):
        Fitted.load(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(WeightsCorrupt, match="not a fitted file"):
        Fitted.load(tmp_path / "text")
    with pytest.raises(WeightsCorrupt, match="not a fitted file"):
        Fitted.from_bytes(save({"mask": torch.zeros(2)}))
    deep = b"[" * 200_000
    with pytest.raises(WeightsCorrupt):
        Fitted.from_bytes(len(deep).to_bytes(8, "little") + deep)
    with pytest.raises(UsageError, match="learned nothing"):
        replace(fitted(), parts={})
