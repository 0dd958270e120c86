import os

import pytest

from sealtape.capture.kms import check_kms, open_kms, read_private_key
from sealtape.capture.kms.file import FileKms, write_new
from sealtape.schemas.errors import Exists, FormatError, KeyUnavailable, StoreError
from sealtape.schemas.wraps import X25519, generate
from tests.conformance.kms import KmsConformance

PRIVATE, PUBLIC = generate("auditor", X25519, os.urandom)


class TestFileKms(KmsConformance):
    @pytest.fixture
    def kms(self, tmp_path):
        return FileKms(tmp_path / "auditor.key")


def test_a_setting_names_a_file_below_the_base(tmp_path):
    (tmp_path / "keys").mkdir()
    open_kms("keys/auditor.key", tmp_path).keep(PRIVATE)
    assert (tmp_path / "keys/auditor.key").read_text() == PRIVATE.text()
    assert (tmp_path / "keys/auditor.key").stat().st_mode & 0o777 == 0o600
    assert read_private_key("keys/auditor.key", tmp_path) == PRIVATE
    key, (check,) = check_kms("keys/auditor.key", tmp_path, "key")
    assert key == PRIVATE
    assert check.level == "ok"
    assert PRIVATE.id in check.message


def test_what_is_no_key_is_not_taken_for_one(tmp_path):
    (tmp_path / "a.pub").write_text(PUBLIC.text())
    with pytest.raises(FormatError):
        read_private_key("a.pub", tmp_path)
    (tmp_path / "é").write_bytes(b"\xff")
    with pytest.raises(KeyUnavailable, match="cannot be read"):
        read_private_key("é", tmp_path)
    for name in ("a.pub", "é", "none"):
        key, (check,) = check_kms(name, tmp_path, "key")
        assert key is None
        assert check.level == "error"
        assert check.hint


def test_a_new_file_is_whole_or_not_there(tmp_path, monkeypatch):
    write_new(tmp_path / "a", "text")
    with pytest.raises(Exists):
        write_new(tmp_path / "a", "other")

    def failing(*arguments):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "link", failing)
    with pytest.raises(StoreError):
        write_new(tmp_path / "b", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "text"
