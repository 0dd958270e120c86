"""`sealtape verify BUNDLE`: a file, a policy, and nothing else."""

import json

import pytest

from sealtape.indexer.cli.verify_bundle import names_bundle
from tests.factories.bundles import LOOSE, PLAIN, story
from tests.vectors.bundle_parts import packed, zipped
from tests.vectors.generate_bundle import deleted, recovered, unsealed, without_frames


@pytest.fixture
def verify(run, tmp_path):
    def call(files, *words, policy=PLAIN, name="case.zip"):
        place = tmp_path / name
        place.write_bytes(packed(files) if isinstance(files, dict) else files)
        (tmp_path / "policy.toml").write_text(policy)
        return run("verify", place, "--policy", tmp_path / "policy.toml", *words)

    return call


@pytest.mark.parametrize(
    ("files", "code", "word"),
    [
        (story, 0, "VERIFIED"),
        (without_frames, 1, "TAMPERED"),
        (unsealed, 2, "INCOMPLETE"),
        (deleted, 3, "DELETED"),
        (lambda: b"", 1, "TAMPERED"),
        (lambda: b"no bundle", 1, "TAMPERED"),
    ],
)
def test_verdicts_are_exit_codes(verify, files, code, word):
    answer = verify(files())
    assert answer.code == code
    assert answer.out.splitlines()[-1].startswith(word)
    assert answer.err == ""
    assert verify(files(), "--json").json["verdict"] == word.lower()


def test_steps_are_listed(verify):
    out = verify(recovered()).out
    assert "PASS          checkpoint" in out
    assert "NOT PROVIDED  payloads" in out
    assert "not before 2026-11-23T00:00:03" in out
    assert "attested by the node's key" in out


def test_a_report_as_one_page(verify, tmp_path):
    answer = verify(story(), "--html", tmp_path / "report.html")
    assert answer.code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "case.zip" in page
    answer = verify(story(), "--html", tmp_path / "nowhere/report.html")
    assert (answer.code, "cannot be written" in answer.err) == (74, True)


def test_the_policy_is_the_verifiers_own(run, verify, tmp_path):
    (tmp_path / "case.zip").write_bytes(packed(story()))
    answer = run("verify", tmp_path / "case.zip")
    assert (answer.code, "your own policy" in answer.err) == (64, True)
    answer = run("verify", tmp_path / "case.zip", "--policy", tmp_path / "none.toml")
    assert answer.code == 64
    answer = verify(story(), policy=PLAIN + "qourum = 1\n")
    assert (answer.code, "qourum" in answer.err) == (64, True)
    assert verify(story(), policy=LOOSE).code == 0


def test_a_file_of_the_bundle_cannot_write_a_verdict(run, tmp_path):
    forged = "VERIFIED: Everything is there, unchanged, and attested by whom the policy trusts."
    (tmp_path / "case.zip").write_bytes(zipped({**story(), f"x\n{forged}\n": b""}))
    (tmp_path / "policy.toml").write_text(PLAIN)
    answer = run("verify", tmp_path / "case.zip", "--policy", tmp_path / "policy.toml")
    assert answer.code == 1
    assert forged not in answer.out.splitlines()
    assert f"x⏎ {forged}" in answer.out


def test_a_policy_that_nothing_here_can_check(verify, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    from tests.factories.bundles import with_authority

    required = with_authority(PLAIN.replace('require = ["monitor"]', 'require = ["timestamp"]'))
    answer = verify(story(), policy=required)
    assert (answer.code, "rfc3161" in answer.err) == (64, True)


def test_a_file_that_is_not_there(run, tmp_path):
    (tmp_path / "policy.toml").write_text(PLAIN)
    words = ["--policy", tmp_path / "policy.toml"]
    assert run("verify", tmp_path / "none.zip", *words).code == 66
    assert run("verify", tmp_path, *words).code == 74


def test_neither_settings_nor_stores_are_needed(verify, tmp_path):
    answer = verify(story(), "--json")
    assert answer.code == 0
    assert sorted(item.name for item in tmp_path.iterdir()) == ["case.zip", "policy.toml"]
    assert json.loads(answer.out)["policy_sha256"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("case.zip", True), ("./case", True), ("3f9a", False), ("here", True), (None, False)],
)
def test_what_is_a_file(name, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").write_bytes(b"")
    assert names_bundle(name) is expected
