"""README.txt of bundles."""

import hashlib
from pathlib import Path

import pytest

from sealtape.indexer.evidence import readme as module
from sealtape.indexer.evidence.readme import VERIFIER_SHA256, readme

ROOT = Path(__file__).resolve().parents[3]
VERIFIER = ROOT / "deploy/verifier/sealtape_verify.py"


def test_it_names_the_session_and_its_checkpoint():
    text = readme(bytes(range(16)), "log/1", 42).decode()
    assert "000102030405060708090a0b0c0d0e0f" in text
    assert "checkpoints/42" in text
    assert "{" not in text
    assert len(text) < 65_536


def test_the_second_verifier_is_named_by_its_hash(monkeypatch):
    monkeypatch.setattr(module, "VERIFIER_SHA256", "0a" * 32)
    assert b"SHA-256 " + b"0a" * 32 in readme(bytes(16), "log/1", 1)
    monkeypatch.setattr(module, "VERIFIER_SHA256", "")
    assert b"SHA-256 0a" not in readme(bytes(16), "log/1", 1)


@pytest.mark.skipif(not VERIFIER.exists(), reason="the second verifier is not in this tree")
def test_it_is_the_hash_of_the_file():
    digest = hashlib.sha256(VERIFIER.read_bytes()).hexdigest()
    assert digest == VERIFIER_SHA256, f"put {digest} into indexer/evidence/readme.py"
