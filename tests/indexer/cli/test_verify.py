"""`sealtape verify`."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from sealtape.indexer.cli.verify import cpus
from sealtape.indexer.monitor.folder import MonitorFolder
from sealtape.schemas.trust import format_trust
from sealtape.schemas.verify.violations import Violation
from tests.factories.deployments import make_site, seal, tree_state
from tests.factories.logs import grow_log
from tests.factories.sessions import node_signer, reader

HOUR_NS = 3600 * 10**9


def damage(site, payload):
    """Flip a bit in a sealed payload."""
    for path in site.objects():
        data = bytearray(path.read_bytes())
        at = data.find(payload)
        if at >= 0:
            data[at + len(payload) // 2] ^= 1
            path.chmod(0o644)
            path.write_bytes(data)
            return str(path.relative_to(site.folder / "vault"))
    raise LookupError


def test_one_session(at, recorded):
    answer = at("verify", recorded.closed.session.hex(), "--json")
    assert answer.code == 0
    report = answer.json
    assert report["verdict"] == "verified"
    assert report["sessions"] == 1
    assert report["frames"] == len(recorded.closed.frames)
    assert report["bytes"] == sum(len(frame.payload) for frame in recorded.closed.frames)
    assert report["findings"] == []


def test_the_first_digits_are_enough_in_either_case(at, recorded):
    name = recorded.closed.session.hex()
    for given in (name[:10], name[:10].upper(), name.upper()):
        assert at("verify", given).code == 0


def test_everything_with_a_live_session(at, recorded):
    answer = at("verify", "--all", "--json")
    assert answer.code == 2
    report = answer.json
    assert report["verdict"] == "incomplete"
    assert report["sessions"] == 3
    (finding,) = report["findings"]
    assert {"layer", "object", "session", "seq", "reason"} <= set(finding)
    assert finding["session"] == recorded.live.session.hex()


def acknowledge(run, folder, found):
    MonitorFolder(folder).add_found([Violation(**each) for each in found], 5)
    words = ["monitor", "acknowledge", "--state", folder, "--by", "ann", "--reason", "moved house"]
    assert run(*words).code == 0


def test_what_ones_own_monitor_has_acknowledged_is_noted(run, tmp_path):
    """An outage of hours, once explained, does not make every later run incomplete."""
    site, folder = make_site(tmp_path / "site"), tmp_path / "office"

    async def fill():
        for hours in (5, 0):
            await seal(site, [site.session()])
            await grow_log(site, clock_ns=lambda ago=hours: time.time_ns() - ago * HOUR_NS)

    asyncio.run(fill())
    words = ["verify", "--all", "-c", site.config, "--json"]
    answer = run(*words)
    assert answer.code == 2
    (finding,) = answer.json["findings"]
    found = re.fullmatch(r"entry (\d+) of shard 1", finding["object"])
    assert finding["reason"].startswith("silent: ")
    folder.mkdir()
    assert run(*words, "--monitor", folder).code == 2
    acknowledge(run, folder, [
        {"number": 1, "index": int(found[1]), "rule": "silent", "reason": "of that time"},
    ])  # fmt: skip
    answer = run(*words, "--monitor", folder)
    assert (answer.code, answer.json["findings"]) == (0, [])
    assert any("acknowledged by ann: moved house" in note for note in answer.json["notes"])
    once = run(*words, "--schedule", "--once", "--monitor", folder)
    assert (once.code, once.json["verdict"]) == (0, "verified")
    assert run(*words, "--monitor", tmp_path / "none").code == 64
    assert run(*words[:1], "ab", *words[2:], "--monitor", folder).code == 64


def test_for_people(at, recorded):
    answer = at("verify", "--all")
    assert "INCOMPLETE session" in answer.out
    last = answer.out.splitlines()[-1]
    assert re.fullmatch(r"INCOMPLETE: 3 sessions, \d+ frames, [\d.]+ KiB", last)
    assert at("verify", recorded.closed.session.hex()).out.startswith("VERIFIED: 1 sessions")


def test_a_damaged_frame(run, copied, recorded):
    key = damage(copied, recorded.grace.frames[2].payload)
    answer = run("-c", copied.config, "verify", "--all", "--json")
    assert answer.code == 1
    assert answer.json["verdict"] == "tampered"
    places = [(f["layer"], f["object"], f["session"], f["seq"]) for f in answer.json["findings"]]
    assert ("frame", key, recorded.grace.session.hex(), 2) in places
    people = run("-c", copied.config, "verify", "--all")
    assert people.code == 1
    assert f"session {recorded.grace.session.hex()[:12]} frame 2" in people.out
    beside = run("-c", copied.config, "verify", recorded.closed.session.hex(), "--json").json
    assert [(f["layer"], f["object"], f["seq"]) for f in beside["findings"]] == [
        ("object", key, None)
    ], "the object that holds it is not the one that was sealed, its own frames are"


def test_many_findings_are_cut_for_people_only(run, copied):
    for path in copied.objects(".manifest.jsonl"):
        for number in range(120):
            path.with_name(f"{number}.txt").write_bytes(b"")
    people = run("-c", copied.config, "verify", "--all")
    assert re.search(r"… and \d+ more findings", people.out)
    assert len(run("-c", copied.config, "verify", "--all", "--json").json["findings"]) > 119


def test_a_copy_verifies_without_the_original(run, copied, recorded, tmp_path):
    moved = tmp_path / "moved"
    copied.folder.rename(moved)
    answer = run("-c", moved / "sealtape.toml", "verify", recorded.closed.session.hex())
    assert answer.code == 0
    assert run("-c", moved, "verify", "--all", "--decrypt").code == 2
    assert str(recorded.site.folder) not in (moved / "sealtape.toml").read_text()


@pytest.mark.parametrize("words", [[], ["--decrypt"], ["--deep"]])
def test_it_never_writes(at, recorded, words):
    before = tree_state(recorded.site.folder)
    at("verify", "--all", *words)
    at("verify", recorded.closed.session.hex(), *words)
    assert tree_state(recorded.site.folder) == before


@pytest.mark.parametrize("words", [[], ["abcd", "--all"], [""]])
def test_one_or_all(at, words):
    answer = at("verify", *words, "--json")
    assert answer.code == 64
    assert answer.error["code"] == "usage"


def test_no_such_session(at):
    for name in ("ffffffffffff0000", "not-hex"):
        answer = at("verify", name, "--json")
        assert answer.code == 66
        assert answer.error["code"] == "not-found"


def test_a_whole_id_of_which_nothing_is_sealed_is_incomplete(at):
    answer = at("verify", "f" * 32, "--json")
    assert answer.code == 2
    assert answer.json["verdict"] == "incomplete"


def test_digits_of_several(run, tmp_path, recorded):
    site = make_site(tmp_path / "site")
    pair = [site.session(session=b"\xab" + bytes([n]) * 15) for n in (1, 2)]
    asyncio.run(seal(site, pair))
    answer = run("-c", site.config, "verify", "ab", "--json")
    assert answer.code == 64
    assert answer.error["code"] == "ambiguous"
    assert run("-c", site.config, "verify", "ab01").code == 0


def test_nothing_recorded_is_never_0(run, tmp_path):
    run("init", "lab", "--dev")
    assert run("-c", "lab", "verify", "--all").code == 74
    site = make_site(tmp_path / "site")
    asyncio.run(seal(site, []))
    assert run("-c", site.config, "verify", "--all").code == 2


# -- whom it trusts -------------------------------------------------------------------------------


def test_a_trust_file_of_ones_own(run, copied, recorded, tmp_path):
    mine = tmp_path / "trust.toml"
    shutil.copy(copied.folder / "trust.toml", mine)
    (copied.folder / "trust.toml").write_text(format_trust([node_signer("x").verifier.vkey]))
    name = recorded.closed.session.hex()
    assert run("-c", copied.config, "verify", name).code == 1
    assert run("-c", copied.config, "verify", name, "--trust", mine).code == 0


def test_a_trust_file_that_cannot_be_had(at, run, copied, recorded, tmp_path):
    name = recorded.closed.session.hex()
    assert at("verify", name, "--trust", tmp_path / "none", "--json").error["code"] == "usage"
    (tmp_path / "bad").write_text("[[node]]\nname = 1\n")
    assert at("verify", name, "--trust", tmp_path / "bad").code == 65
    (copied.folder / "trust.toml").unlink()
    assert run("-c", copied.config, "verify", name).code == 64
    (tmp_path / "empty").write_text("")
    assert at("verify", name, "--trust", tmp_path / "empty").code == 1, "nobody is trusted"


# -- keys -----------------------------------------------------------------------------------------


def test_payloads_are_opened_with_the_auditors_key(at, recorded):
    for words in (["--decrypt"], ["--key", recorded.site.folder / "keys/auditor.key"]):
        answer = at("verify", recorded.closed.session.hex(), *words, "--json")
        assert answer.code == 0
        assert answer.json["notes"] == []


def test_the_wrong_key_is_a_note(at, recorded, tmp_path):
    (tmp_path / "other.key").write_text(reader("auditor", 9).text())
    answer = at("verify", recorded.closed.session.hex(), "--key", tmp_path / "other.key", "--json")
    assert answer.code == 0
    assert "no key of it is wrapped" in answer.json["notes"][0]
    people = at("verify", recorded.closed.session.hex(), "--key", tmp_path / "other.key")
    assert "note: session" in people.out


def test_a_key_that_is_none(at, recorded, tmp_path):
    name = recorded.closed.session.hex()
    answer = at("verify", name, "--key", tmp_path / "none", "--json")
    assert answer.code == 77
    assert answer.error["code"] == "key-unavailable"
    answer = at("verify", name, "--key", recorded.site.folder / "keys/auditor.pub", "--json")
    assert answer.code == 65


def test_made_up_facts_are_found(at, recorded):
    """The factory's facts are not those that the codec tells of its bytes."""
    answer = at("verify", recorded.closed.session.hex(), "--deep", "--json")
    assert answer.code == 1
    assert {f["layer"] for f in answer.json["findings"]} == {"facts"}


def test_without_a_keyring_the_evidence_is_whole(run, copied, recorded):
    for path in copied.folder.glob("keyring.db*"):
        path.unlink()
    name = recorded.closed.session.hex()
    assert run("-c", copied.config, "verify", name).code == 0
    assert run("-c", copied.config, "verify", name, "--decrypt").code == 74


def test_as_a_process_from_elsewhere(recorded, tmp_path):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sealtape", "verify", recorded.closed.session.hex()],
        cwd=tmp_path,
        env=os.environ | {"SEALTAPE_CONFIG": str(recorded.site.config)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stdout.startswith("VERIFIED")
    assert done.stderr == ""


def test_several_processes_find_the_same(run, copied, recorded):
    for state in ("whole", "damaged"):
        one, two = (
            run("-c", copied.config, "verify", "--all", *more, "--json")
            for more in ((), ("--jobs", "2"))
        )
        assert (one.code, one.json) == (two.code, two.json)
        if state == "whole":
            damage(copied, recorded.grace.frames[2].payload)
    assert one.code == 1


@pytest.mark.parametrize("jobs", ["9999999", str(4 * cpus() + 1)])
def test_no_more_processes_than_a_few_for_each_cpu(at, jobs):
    answer = at("verify", "--all", "--jobs", jobs)
    assert (answer.code, answer.out) == (64, "")
    assert f"at most {4 * cpus()}, four for each CPU" in answer.err


def test_as_many_processes_as_that(at):
    assert at("verify", "--all", "--jobs", str(4 * cpus())).code == at("verify", "--all").code


@pytest.mark.parametrize("word", ["--decrypt", "--deep"])
def test_several_processes_have_no_key(at, word):
    answer = at("verify", "--all", "--jobs", "2", word)
    assert answer.code == 64
    assert "--jobs" in answer.err
