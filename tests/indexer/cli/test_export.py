"""`sealtape export`, and `sealtape verify` of what it wrote."""

import asyncio
import json
import os
import shutil
import subprocess
import sys

import pytest

from sealtape.indexer.cli.export import frames_of
from sealtape.indexer.export import Frames
from sealtape.schemas.errors import UsageError
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A site whose log has a session, and that session."""
    site = make_site(tmp_path_factory.mktemp("export") / "site")
    built = site.session(commands=3)

    async def fill():
        await seal(site, [built])
        await grow_log(site)

    asyncio.run(fill())
    return site, built


@pytest.fixture
def export(run, lab, tmp_path):
    site, built = lab

    def call(*words, session=None):
        place = tmp_path / "case.zip"
        answer = run(
            "export", session or built.session.hex(), "-o", place,
            "-c", site.folder / "sealtape.toml", *words,
        )  # fmt: skip
        return answer, place

    return call


@pytest.fixture
def verify(run, lab):
    site, _ = lab

    def call(place, *words):
        return run("verify", place, "--policy", site.folder / "policy.toml", *words)

    return call


def test_exported_and_verified(export, verify, lab):
    answer, place = export()
    assert answer.code == 0
    assert "verify it: sealtape verify" in answer.out
    checked = verify(place)
    assert checked.code == 0
    assert checked.out.rstrip().endswith("attested by whom the policy trusts.")
    assert lab[1].session.hex() in checked.out


def test_for_programs(export, verify, lab):
    answer, place = export("--json", "--with-keys")
    found = answer.json
    assert (found["file"], found["bytes"]) == (str(place), place.stat().st_size)
    assert (found["lacking"], found["withheld"]) == ([], 0)
    assert found["keys"] > 0
    report = verify(place, "--json").json
    assert report["verdict"] == "verified"
    assert {step["step"]: step["state"] for step in report["steps"]}["payloads"] == "PASS"


def test_the_first_digits_are_enough(export, lab):
    assert export(session=lab[1].session.hex()[:8])[0].code == 0


def test_redacted(export, verify):
    answer, place = export("--redact", "2", "0:3-4", "--with-keys", "--json")
    assert (answer.code, answer.json["withheld"]) == (0, 3)
    report = verify(place, "--json").json
    assert report["verdict"] == "verified"
    assert report["spans"] == [{"what": "withheld", "epoch": 0, "frames": [2, 5]}]


def test_keys_of_chosen_frames(export):
    answer, _ = export("--with-keys", "1", "3", "--json")
    assert answer.json["keys"] == 2


def test_a_bundle_is_for_its_owner_alone(export):
    answer, place = export("--with-keys")
    assert answer.code == 0
    assert place.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in place.parent.iterdir() if "partial" in path.name] == []


def test_nothing_is_overwritten(export):
    _, place = export()
    before = place.read_bytes()
    answer, _ = export()
    assert (answer.code, place.read_bytes()) == (64, before)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--redact", "0"], 64),
        (["--redact", "x"], 64),
        (["--redact", "2", "999"], 64),
        (["--redact", "1:2"], 64),
        (["--with-keys", "999"], 64),
        (["--with-keys", "--key", "nowhere.key"], 77),
    ],
)
def test_what_cannot_be_exported(export, words, code):
    answer, place = export(*words)
    assert answer.code == code
    assert not place.exists()


def test_a_session_that_is_not_there(export):
    answer, _ = export("--wait", "0.1", session="00" * 16)
    assert answer.code == 66
    answer, _ = export("--wait", "0.1", session="beef")
    assert answer.code == 66


def test_a_place_that_cannot_be_written(run, lab, tmp_path):
    site, built = lab
    place = tmp_path / "missing/case.zip"
    answer = run("export", built.session.hex(), "-o", place, "-c", site.folder / "sealtape.toml")
    assert (answer.code, "cannot be written" in answer.err) == (74, True)


def test_waiting_for_the_log(run, tmp_path):
    """A session that is not in the log when the command begins, and is when it ends."""
    site = make_site(tmp_path / "site")
    built = site.session(commands=1)
    asyncio.run(seal(site, [built]))
    words = [
        sys.executable, "-P", "-m", "sealtape", "export", built.session.hex(), "-o",
        str(tmp_path / "case.zip"), "-c", str(site.folder / "sealtape.toml"), "--wait", "60",
    ]  # fmt: skip
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        asyncio.run(grow_log(site))
        _, err = process.communicate(timeout=90)
    assert (process.returncode, err) == (0, "")


def test_what_is_lacking_is_said(run, tmp_path):
    site = make_site(tmp_path / "site")
    live = site.session(commands=1, close=None)

    async def fill():
        await seal(site, [live])
        await grow_log(site)

    asyncio.run(fill())
    config = site.folder / "sealtape.toml"
    place = tmp_path / "case.zip"
    answer = run("export", live.session.hex(), "-o", place, "-c", config, "--wait", "0.2")
    assert answer.code == 0
    assert "incomplete: epoch 0 is not sealed" in answer.err
    assert run("verify", place, "--policy", site.folder / "policy.toml").code == 2


@pytest.mark.parametrize(
    ("words", "ranges"),
    [
        ([], ()),
        (["3"], ((0, 3, 4),)),
        (["1:3", "7-9"], ((1, 3, 4), (0, 7, 10))),
        (["2:7-9"], ((2, 7, 10),)),
    ],
)
def test_frames_by_name(words, ranges):
    assert frames_of(words) == Frames(ranges)


@pytest.mark.parametrize("word", ["", "x", "-1", "1-", "3-2", "1:2:3", "1:", "٣", "9" * 20])
def test_frames_that_are_none(word):
    with pytest.raises(UsageError):
        frames_of([word])


def test_which_frames_are_among_them():
    chosen = frames_of(["1:3", "7-9"])
    assert [chosen.has(1, 3), chosen.has(0, 3), chosen.has(0, 9), chosen.has(0, 10)] == [
        True, False, True, False,
    ]  # fmt: skip


def test_offline(export, lab, tmp_path):
    """In a network namespace of its own there is nobody to ask."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    alone = ["unshare", "--map-root-user", "--net", "--"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make network namespaces here")
    _, place = export("--with-keys")
    policy = lab[0].folder / "policy.toml"
    done = subprocess.run(
        [*alone, sys.executable, "-P", "-m", "sealtape", "verify", str(place), "--json",
         "--policy", str(policy)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=dict(os.environ),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["verdict"] == "verified"
