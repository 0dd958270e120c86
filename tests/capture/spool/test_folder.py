import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sealtape.capture.spool.folder import RECOVERY, Spool
from sealtape.capture.spool.records import FRAMES
from sealtape.schemas.errors import StoreError

VECTORS = Path(__file__).parents[2] / "vectors/spool.json"
KEY = bytes(32)
BOOT = bytes(range(16))


@pytest.fixture
def spool(tmp_path):
    made = []

    def make(boot=None, node="node-1", worker=0):
        boot = boot or os.urandom(16)
        made.append(
            Spool(tmp_path / "spool", node=node, boot=boot, worker=worker, key=KEY, limit=1 << 20)
        )
        return made[-1]

    yield make
    for each in made:
        if each._lock is not None:
            each.close(remove=False)


def die(spool):
    spool.close(remove=False)


def test_a_folder_has_the_name_of_its_worker_and_is_private(spool, tmp_path):
    mine = spool(BOOT, worker=3)
    assert mine.folder.name == "node-1-000102030405060708090a0b0c0d0e0f-3"
    assert mine.folder.stat().st_mode & 0o777 == 0o700
    mine.close(remove=True)
    assert not mine.folder.exists()


def test_the_living_are_not_adopted_and_the_dead_once(spool):
    living, dead, mine = spool(), spool(), spool()
    die(dead)
    (orphan,) = mine.claim_orphans()
    assert orphan.folder == dead.folder
    assert spool().claim_orphans() == []
    orphan.release()
    (again,) = living.claim_orphans()
    again.remove(damaged=False)
    assert not dead.folder.exists()
    again.release()


def test_another_nodes_folders_are_left_alone(spool):
    die(spool(node="node"))
    die(spool(node="node-1-2"))
    assert spool(node="node-1").claim_orphans() == []
    assert len(spool(node="node-1-2").claim_orphans()) == 1


def test_a_killed_process_leaves_an_orphan(spool, tmp_path):
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from sealtape.capture.spool.folder import Spool\n"
        "s = Spool(Path(sys.argv[1]), node='node-1', boot=bytes(16), worker=5, key=bytes(32),"
        " limit=1 << 20)\ns.reserve(41)\ns.reserve(42)\nos.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "spool")], check=False)
    (orphan,) = spool().claim_orphans()
    assert (orphan.boot, orphan.worker, orphan.numbers) == (bytes(16), 5, 42)
    orphan.release()


@pytest.mark.parametrize("damage", [b"", b"\xff" * 24, bytes(24), None])
def test_numbers_survive_damage_of_one_slot(spool, damage):
    dead = spool()
    dead.reserve(7)
    dead.reserve(8)
    counter = dead.folder / "counter"
    whole = counter.read_bytes()
    assert whole[:12].hex() == json.loads(VECTORS.read_text())["counter"]["slot"]
    die(dead)
    if damage is None:
        counter.unlink()
    else:
        counter.write_bytes(damage)
    mine = spool()
    (orphan,) = mine.claim_orphans()
    assert orphan.numbers == 0
    orphan.release()
    counter.write_bytes(whole[:12] + bytes(12))
    (orphan,) = mine.claim_orphans()
    assert orphan.numbers == 7
    orphan.release()


def test_recovery_is_kept_whole_or_not_at_all(spool, tmp_path, failing_files):
    dead = spool()
    dead.lane("spooled", sync=False).write([(FRAMES, [b"x"])], fresh=True)
    die(dead)
    mine = spool()
    (orphan,) = mine.claim_orphans()
    assert not orphan.recovered
    mine._create = failing_files(room=60).create
    with pytest.raises(StoreError):
        orphan.keep_recovery([[b"half a"], [b"recovery"]])
    assert not orphan.recovered
    mine._create = failing_files().create
    orphan.keep_recovery([[b"a whole"], [b"recovery"]])
    assert orphan.recovered
    assert [path.name for path in orphan.files()] == ["spooled-00000001.spool", RECOVERY]
    assert mine.budget.used == orphan._bytes
    orphan.release()
    assert mine.budget.used == 0


def test_a_damaged_folder_is_kept_under_another_name(spool):
    dead = spool()
    die(dead)
    mine = spool()
    (orphan,) = mine.claim_orphans()
    orphan.remove(damaged=True)
    assert not dead.folder.exists()
    assert dead.folder.with_name(dead.folder.name + ".damaged").is_dir()
    assert mine.claim_orphans() == []


@pytest.mark.parametrize("damaged", [False, True])
def test_a_folder_goes_while_nobody_looks_for_orphans(spool, damaged):
    """A worker that starts at that moment must not fail, nor lock what is half gone."""
    dead, mine = spool(), spool()
    die(dead)
    (orphan,) = mine.claim_orphans()
    with (mine.root / ".lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_EX)
        removing = threading.Thread(target=orphan.remove, kwargs={"damaged": damaged})
        removing.start()
        removing.join(0.2)
        assert (dead.folder / "lock").exists()
    removing.join(60)
    assert not dead.folder.exists()


def test_a_root_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "spool").write_text("in the way")
    with pytest.raises(StoreError):
        Spool(tmp_path / "spool", node="n", boot=BOOT, worker=0, key=KEY, limit=1 << 20)


def test_files_stay_small_against_the_limit(tmp_path):
    small = Spool(tmp_path, node="n", boot=BOOT, worker=0, key=KEY, limit=80_000)
    assert small._file_bytes == 10_000
    small.close(remove=True)


def test_a_crash_in_deleting_a_folder_leaves_what_says_that_sessions_are_over(spool, monkeypatch):
    dead, mine = spool(), spool()
    lane = dead.lane("spooled-receipt", sync=False, keeps=True)
    lane.write([(FRAMES, [b"frames"])], fresh=True)
    lane.close()
    die(dead)
    (orphan,) = mine.claim_orphans()
    orphan.keep_recovery([])
    (orphan.folder / "spooled-receipt.settled").write_bytes(b"")
    gone, unlink = [], Path.unlink

    def seen(path, **options):
        gone.append(path.name)
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", seen)
    orphan.remove(damaged=False)
    assert gone[0] == "spooled-receipt-00000001.spool"
    assert sorted(gone[1:3]) == ["counter", "spooled-receipt.settled"]
    assert gone[3:] == [RECOVERY, "lock"]
