"""The composition, as far as it can be tried without a container engine."""

import os
import re
import shutil
import stat
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from sealtape.indexer.cli.main import build_parser
from sealtape.indexer.cli.setup import STORES
from sealtape.ingest.keyring import check_keyring, prepare_keyring
from sealtape.ingest.ledger import check_ledger, prepare_ledger
from sealtape.ingest.tlog.opening import read_policy
from sealtape.ingest.tlog.signer_file import FileSigner
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.settings import load_settings
from tests.house import sources

DEPLOY = sources.ROOT / "deploy"
TEXT = (DEPLOY / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]
ONCE = {"prepare", "setup", "users", "acls", "auditor"}
ROOMS = ("setup", "capture", "ingest", "indexer", "auditor")
NAMED = (
    re.compile(r"[?&](?:ca|cert|key|password_file)=([^&\"]+)"),
    re.compile(r"^(?:ca|tls_\w+) = \"([^\"]+\.\w+)\"$", re.MULTILINE),
    re.compile(r"file = \"([^\"]+)\""),
)


def prepare(folder):
    """Run `prepare` as its service does, in a folder that has what is mounted there."""
    place = folder / "prepare"
    if not place.exists():
        shutil.copytree(DEPLOY / "compose", place)
        shutil.copy(DEPLOY / "demo/shop.sql", place)
        shutil.copy(sources.ROOT / "tests/servers/realm.json", place)
        for mount in SERVICES["prepare"]["volumes"]:
            if mount.startswith("conf-"):
                (folder / mount.split(":")[1].lstrip("/")).mkdir(parents=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, place / "prepare.py", folder / "out"],
        capture_output=True, text=True, check=False, env={**os.environ, "PATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out"


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
        own = {"users": "postgres", "acls": "kafka"}.get(name, name)
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
    assert (opened.quorum, len(opened.algorithms)) == (True, 2)
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
    database.sql((out / "postgres/users.sql").read_text())
    for room in ("ingest", "indexer", "auditor"):
        password = out / room / "secrets/database"
        for name, check in (("ledger", check_ledger), ("keyring", check_keyring)):
            url = database.url(f"schema=sealtape_{name}", user=room, password_file=password)
            found = await check(url, Path())
            assert not [each for each in found if each.level == "error"], (room, name, found)
            assert len(found) > 3


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
