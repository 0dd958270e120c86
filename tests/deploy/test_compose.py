"""The composition, as far as it can be tried without a container engine."""

import re
import stat
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from sealtape.indexer.cli.main import build_parser
from sealtape.indexer.cli.setup import STORES
from sealtape.ingest.keyring import check_keyring, prepare_keyring
from sealtape.ingest.ledger import check_ledger, prepare_ledger
from sealtape.ingest.tlog.opening import read_policy
from sealtape.ingest.tlog.signer_file import FileSigner, read_key
from sealtape.ingest.vault import open_vault
from sealtape.schemas.evidence import parse_evidence_policy
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.settings import load_settings
from tests.deploy.composed import COMPOSE, DEPLOY, SERVICES, TEXT, prepare
from tests.factories.s3_vaults import SECRET_VARIABLE, s3_vault

ONCE = {"prepare", "setup", "users", "acls", "introduce", "auditor"}
ROOMS = ("setup", "capture", "ingest", "indexer", "auditor", "verify")
OURS = [name for name, service in SERVICES.items() if service["image"] == "sealtape:local"]
NAMED = (
    re.compile(r"[?&](?:ca|cert|key|password_file)=([^&\"]+)"),
    re.compile(r"^(?:ca|tls_\w+) = \"([^\"]+\.\w+)\"$", re.MULTILINE),
    re.compile(r"file = \"([^\"]+)\""),
)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("composed"))


def contents(out):
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }


def test_a_second_run_changes_nothing(out):
    before = contents(out)
    prepare(out.parent)
    assert contents(out) == before


def test_what_is_drawn_is_drawn_anew_each_time(out, tmp_path):
    """No password, key or certificate is the same in two installations, nor in two places."""
    other = contents(prepare(tmp_path))
    drawn = contents(out)
    assert drawn.keys() == other.keys()
    ends = ("password", ".key", ".pem", ".crt", "run.sh")
    same = {"opensearch/run.sh"}  # reads its passwords from files
    secret = [name for name in drawn if "/secrets/" in name or name.endswith(ends)]
    secret = [name for name in secret if name not in same]
    assert len(secret) > 30
    assert not [name for name in secret if drawn[name] == other[name]]
    passwords = {drawn[name] for name in secret if "/secrets/" in name or "password" in name}
    assert all(len(password) == 32 for password in passwords)
    for password in passwords:
        assert password.decode() not in TEXT


def test_nothing_is_left_to_be_filled_in(out):
    assert not [name for name, data in contents(out).items() if re.search(rb"@[a-z]+@", data)]


def test_secrets_are_for_their_service_only(out):
    for path in out.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0 or path.is_dir(), path
    for name, service in SERVICES.items():
        volumes = {mount.split(":")[0] for mount in service.get("volumes", ())}
        own = {"users": "postgres", "acls": "kafka", "introduce": "auditor"}.get(name, name)
        if name != "prepare":
            assert {v for v in volumes if v.startswith("conf-")} == {f"conf-{own}"}


@pytest.mark.parametrize("room", ROOMS)
def test_settings_of_the_rooms(out, room):
    """They can be read, and every file that they name is there."""
    text = (out / room / "sealtape.toml").read_text()
    settings = load_settings(text, base=str(out / room))
    assert settings.deployment.mode == "production"
    named = {name for pattern in NAMED for name in pattern.findall(text)}
    assert len(named) >= 3
    assert not [name for name in named if not (out / room / name).is_file()]
    if room == "setup":
        assert all(getattr(settings.stores, name) for name, _ in STORES)


def test_a_room_has_no_store_that_it_does_not_use(out):
    capture = load_settings((out / "capture/sealtape.toml").read_text(), base=str(out / "capture"))
    assert not [path for path in contents(out) if path.startswith("capture/secrets/data")]
    assert {"node.key", "spool.key", "auditor.pub", "indexer.pub"} == {
        path.name for path in (out / "capture/keys").iterdir()
    }
    assert {path.name for path in (out / "indexer/keys").iterdir()} == {"indexer.key"}
    assert not (out / "ingest/keys").exists()
    assert {path.name for path in (out / "signer/keys").iterdir()} == {"log.key", "log.mldsa.key"}
    held = {room: set(contents(out / room)) for room in ("witness", "monitor", "verify")}
    assert held == {
        "witness": {"keys/witness.key", "log.policy"},
        "monitor": {"keys/monitor.key", "policy.toml"},
        "verify": {
            *("sealtape.toml", "trust.toml", "policy.toml", "ca.crt"),
            *("secrets/database", "secrets/s3"),
        },
    }
    assert capture.targets["shop"].tls == "verify-full"


async def test_the_signer_has_the_key_that_ingest_trusts(out, tmp_path):
    """Each from its own folder, as the services are started."""
    settings = load_settings((out / "ingest/sealtape.toml").read_text(), base=str(out / "ingest"))
    command = SERVICES["signer"]["command"]
    args = build_parser().parse_args(command)
    key = out / "signer" / Path(args.key).relative_to("/etc/sealtape")
    assert settings.log.signer == f"unix:{args.socket}"
    signer = await FileSigner.open(key, tmp_path / "log.signed")
    text = Checkpoint(f"{settings.deployment.log}/1", 1, bytes(32)).text()
    opened = read_policy(settings).open(await signer.sign(0, [], text))
    assert (opened.quorum, len(opened.algorithms)) == (False, 2)
    assert {path.name for path in (out / "signer").iterdir()} == {"keys", "sealtape.toml"}


def test_images_are_pinned_and_services_watched():
    for name, service in SERVICES.items():
        image = service["image"]
        if image != "sealtape:local":
            assert re.fullmatch(r"[a-z/-]+:v?\d+(\.\d+)+", image), f"{name}: {image}"
        if name not in ONCE:
            assert service["healthcheck"]["test"], name
    assert not re.search(r"(?i)password: *[^$\s]|PASSWORD=[^\"\\$]", TEXT)


def test_every_volume_is_declared_and_every_dependency_is_a_service():
    used = {
        mount.split(":")[0]
        for service in SERVICES.values()
        for mount in service.get("volumes", ())
        if not mount.startswith(".")
    }
    assert used == set(COMPOSE["volumes"])
    needed = {name for service in SERVICES.values() for name in service.get("depends_on", ())}
    assert needed <= set(SERVICES)
    for service in SERVICES.values():
        for mount in service.get("volumes", ()):
            if mount.startswith("."):
                assert (DEPLOY / mount.split(":")[0]).exists(), mount


def test_our_services_are_started_as_they_can_be(out):
    """The real parser takes each command, and every file that one names is drawn."""
    for name in OURS:
        service = SERVICES[name]
        if name == "prepare":
            continue
        build_parser().parse_args(service["command"])
        mounts = dict(mount.split(":")[:2][::-1] for mount in service["volumes"])
        folder = out / mounts["/etc/sealtape"].removeprefix("conf-")
        named = [word for word in service["command"] if word.startswith("/etc/sealtape/")]
        assert not [
            word for word in named if not (folder / word[len("/etc/sealtape/") :]).is_file()
        ]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert "user" not in service, "the image's own is not root"
        if any("/var/lib/sealtape" in word for word in service["command"]):
            assert mounts["/var/lib/sealtape"] == name


def test_policies_ask_for_both_witness_and_monitor(out):
    settings = load_settings((out / "ingest/sealtape.toml").read_text(), base=str(out / "ingest"))
    policy = read_policy(settings)
    for witness in policy.witnesses:
        command = build_parser().parse_args(SERVICES[witness.name]["command"])
        assert witness.url == f"http://{witness.name}:{command.listen.rpartition(':')[2]}"
        key = read_key(out / witness.name / f"keys/{witness.name}.key")
        assert key.vkey == witness.verifier.vkey
    for room in ("auditor", "verify", "monitor"):
        evidence = parse_evidence_policy((out / room / "policy.toml").read_bytes())
        assert (evidence.monitors, evidence.require) == (("monitor",), {"monitor"})
        assert [w.verifier.vkey for w in evidence.tlog.witnesses] == [
            w.verifier.vkey for w in policy.witnesses
        ]
        assert not any(w.url for w in evidence.tlog.witnesses)
        both = [witness.name for witness in evidence.tlog.witnesses]
        assert evidence.tlog.enough(both)
        assert not any(evidence.tlog.enough([name]) for name in both)


def test_only_loopback_is_published():
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_takes_it(compose_config):
    """By the library that `docker compose config` is made of."""
    project = compose_config(DEPLOY / "compose.yaml")
    assert set(project["services"]) == set(SERVICES)
    assert set(project["volumes"]) == set(COMPOSE["volumes"])


def test_compose_says_what_is_wrong(compose_config, tmp_path):
    broken = tmp_path / "compose.yaml"
    broken.write_text("services: {one: {image: x, no_such_key: 1}}\n")
    with pytest.raises(AssertionError, match="no_such_key"):
        compose_config(broken)


async def test_the_rooms_database_users_may_do_their_work_and_no_more(out, postgres_stores_alone):
    """`users.sql` after `sealtape setup`, on a PostgreSQL: then `doctor` finds nothing wrong."""
    server = postgres_stores_alone
    database = server.database()
    for name, make in (("ledger", prepare_ledger), ("keyring", prepare_keyring)):
        await make(database.url(f"schema=sealtape_{name}"), Path())
    for _ in range(2):  # `users` runs with each `up`
        database.sql((out / "postgres/users.sql").read_text())
    checks = {"ledger": check_ledger, "keyring": check_keyring}
    for room in ("ingest", "indexer", "auditor", "verify"):
        password = out / room / "secrets/database"
        for name, check in checks.items():
            if (room, name) == ("verify", "keyring"):
                continue  # it has no right there, and its settings do not name it
            url = database.url(f"schema=sealtape_{name}", user=room, password_file=password)
            found = await check(url, Path())
            assert not [each for each in found if each.level == "error"], (room, name, found)
            assert len(found) > 3


async def test_the_monitor_can_read_the_objects_as_files(s3_server, monkeypatch):
    """As its service does: from the store's folder, as another user than the store's."""
    monkeypatch.setenv(SECRET_VARIABLE, s3_server.secret_key)
    bucket = s3_server.bucket(versioning=True)
    async with s3_vault(s3_server, bucket, "vault") as vault:
        await vault.put_new("seg/v1/main/one.parquet", b"sealed")
        await vault.swap("log/v1/1/checkpoint", b"first", None)
        await vault.swap("log/v1/1/checkpoint", b"second", b"first")
    folder = s3_server.place / "objects" / bucket / "vault"
    seen = await open_vault(f"file:{folder}", Path())
    assert [key async for key in seen.keys("")] == [
        "log/v1/1/checkpoint",
        "seg/v1/main/one.parquet",
    ]
    assert await seen.get("log/v1/1/checkpoint") == b"second"
    assert await seen.get("seg/v1/main/one.parquet") == b"sealed"
    modes = [(path.is_dir(), path.stat().st_mode) for path in folder.rglob("*")]
    assert all(
        mode & stat.S_IROTH and (not is_dir or mode & stat.S_IXOTH) for is_dir, mode in modes
    )


def test_kafka_acls_are_those_of_the_page(out, tmp_path):
    """The script is run with a program in Kafka's place that notes what it is asked."""
    script = (out / "kafka/acls.sh").read_text()
    noted = tmp_path / "asked"
    program = tmp_path / "kafka-acls.sh"
    program.write_text(f'#!/bin/sh\necho "$@" >> {noted}\n')
    program.chmod(0o755)
    text = script.replace("/opt/kafka/bin/kafka-acls.sh", str(program))
    subprocess.run(["sh", "-c", text], check=True)
    rights = set()
    for line in noted.read_text().splitlines():
        words = line.split()
        pairs = list(pairwise(words))
        (who,) = [value for key, value in pairs if key == "--allow-principal"]
        (on,) = [value for key, value in pairs if key in ("--topic", "--group")]
        rights |= {(who, value, on) for key, value in pairs if key == "--operation"}
    written = {(who, on) for who, operation, on in rights if operation == "Write"}
    assert written == {
        ("User:CN=capture", "sealtape.frames"),
        ("User:CN=capture", "sealtape.keys"),
        ("User:CN=ingest", "sealtape.events"),
        ("User:CN=indexer", "sealtape.events"),
    }
    readers = {who for who, operation, on in rights if (operation, on) == ("Read", "sealtape.keys")}
    assert readers == {"User:CN=ingest", "User:CN=indexer", "User:CN=auditor"}
    assert {operation for _, operation, _ in rights} == {
        "Read", "Write", "Describe", "DescribeConfigs",
    }  # fmt: skip


def test_the_image_is_made_of_pinned_requirements():
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"ARG BASE=python:\d+\.\d+\.\d+-slim-\w+", text)
    assert text.count("--require-hashes") == 2
    assert "USER 10001:10001" in text
