"""Fitted files are sealed: only their owner opens them, and a changed byte is found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from bauta.errors import UsageError, WeightsCorrupt, WrongKey
from bauta.keys import DeploymentKey
from bauta.learning.fitted import SECRET, Fitted
from bauta.learning.sealing import is_sealed, seal, unseal, way_of

KEY = DeploymentKey.generate()


def mask() -> Fitted:
    secret = torch.arange(32, dtype=torch.uint8)
    return Fitted("toy", {}, {"mask": torch.zeros(3, 2, 2), SECRET: secret}, teachers=("mobilefacenet",))


def test_sealed_content_comes_back_and_never_looks_the_same():
    first, second = seal(b"a mask", KEY), seal(b"a mask", KEY)
    assert first != second
    assert unseal(first, KEY) == unseal(second, KEY) == b"a mask"
    assert is_sealed(first)
    assert way_of(first) == "file"
    assert b"a mask" not in first


def test_every_flipped_bit_and_every_cut_is_refused():
    sealed = seal(b"a mask", KEY)
    for place in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[place // 8] ^= 1 << place % 8
        if is_sealed(changed):
            with pytest.raises((WeightsCorrupt, WrongKey)):
                unseal(bytes(changed), KEY)
    for length in range(len(sealed)):
        with pytest.raises((WeightsCorrupt, WrongKey)):
            unseal(sealed[:length], KEY)


def test_another_key_and_another_sort_of_key_are_told_apart_from_damage():
    sealed = seal(b"a mask", KEY)
    with pytest.raises(WrongKey, match="does not open"):
        unseal(sealed, DeploymentKey.generate(), "me.mask")
    with pytest.raises(WrongKey, match="sealed under a key file; a passphrase"):
        unseal(sealed, DeploymentKey.from_passphrase("correct horse battery"))


def test_a_passphrase_opens_what_it_sealed():
    phrase = DeploymentKey.from_passphrase("correct horse battery")
    sealed = seal(b"a mask", phrase)
    assert way_of(sealed) == "passphrase"
    assert unseal(sealed, DeploymentKey.from_passphrase("correct horse battery")) == b"a mask"
    with pytest.raises(WrongKey):
        unseal(sealed, DeploymentKey.from_passphrase("correct horse batterY"))


def test_a_mask_that_is_a_key_is_written_sealed_only_and_for_its_owner_alone(tmp_path: Path):
    path = tmp_path / "me.mask"
    with pytest.raises(UsageError, match="not written unsealed"):
        mask().save(path)
    assert not path.exists()
    mask().save(path, key=KEY)
    if os.name == "posix":
        assert path.stat().st_mode & 0o077 == 0
    assert Fitted.load(path, key=KEY).sha256 == mask().sha256
    with pytest.raises(UsageError, match="is sealed") as caught:
        Fitted.load(path)
    assert "--key" in (caught.value.hint or "")
