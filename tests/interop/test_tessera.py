"""Whole logs, checked by tessera's fsck over HTTP: it shares nothing with what wrote them."""

import pytest

from sealtape.ingest.tlog.opening import read_policy
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log, read_log
from tests.factories.served import served


@pytest.fixture
def fsck(tessera_fsck, tmp_path):
    """What fsck says of a log in a folder; nothing when it is whole."""

    def check(folder, vkey):
        with served(folder) as url:
            return tessera_fsck(url, vkey, tmp_path)

    return check


def test_a_log_of_a_million_entries_is_whole(tessera_fsck, big_log, tmp_path):
    assert tessera_fsck(f"{big_log.folder.as_uri()}/", big_log.vkey, tmp_path) == ""


@pytest.mark.soak
def test_a_log_of_a_million_entries_is_whole_over_http(fsck, big_log):
    assert fsck(big_log.folder, big_log.vkey) == ""


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512, 65_536, 65_793])
def test_logs_of_odd_sizes_are_whole(fsck, make_log, size):
    log = make_log(size)
    assert fsck(log.folder, log.vkey) == ""


HARM = {
    "an entry": ("tile/entries/000", lambda data: data.replace(b'{"n":77}', b'{"n":78}', 1)),
    "a leaf": ("tile/0/001.p/44", lambda data: data[:32] + bytes(32) + data[64:]),
    "a hash above": ("tile/1/000.p/1", lambda data: bytes(32)),
    "a bundle that is gone": ("tile/entries/001.p/44", None),
    "a tile that is gone": ("tile/0/000", None),
    "the checkpoint": ("checkpoint", lambda data: data.replace(b"\n300\n", b"\n299\n", 1)),
    "a bundle cut short": ("tile/entries/000", lambda data: data[:-1]),
}


@pytest.mark.parametrize("what", HARM)
def test_harm_is_found_by_it(what, fsck, small_log):
    name, change = HARM[what]
    path = small_log.folder / name
    if change is None:
        path.unlink()
    else:
        before = path.read_bytes()
        path.write_bytes(change(before))
        assert path.read_bytes() != before
    assert fsck(small_log.folder, small_log.vkey) != ""


def test_another_key_is_refused(fsck, small_log):
    vkey = small_log.vkey[:-8] + "AAAAAAA="
    assert fsck(small_log.folder, vkey) != ""


async def test_the_log_of_a_deployment_is_whole(fsck, interop, tmp_path):
    site = make_site(tmp_path / "lab")
    for count in (3, 2):
        await seal(site, [site.session(commands=4) for _ in range(count)])
        await grow_log(site)
    entries, checkpoint = await read_log(site)
    assert len(entries) == checkpoint.size > 10
    folder = site.folder / "vault/log/v1/1"
    (vkey,) = [
        key.verifier.vkey
        for key in read_policy(site.settings).logs
        if key.verifier.name == checkpoint.origin and len(key.verifier.public) == 32
    ]
    assert fsck(folder, vkey) == ""
    assert interop("log", folder, 1, vkey) == (0, f"{checkpoint.size}\n")
    noted = sorted((folder / "checkpoints").iterdir())
    assert noted
    for path in noted:
        assert interop("checkpoint", path, vkey) == (0, "")
