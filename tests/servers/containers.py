"""SEALTAPE_SERVERS=containers: the same servers in their official images.

A container runs on the host's network, with the run's folder under the same path and as the same
user as a local server: ports, files and addresses do not differ, and faults are made in the same
way. It takes a Linux engine that speaks Docker's API, and the dependency group `containers`.

The run's keeper has a process for each container, which is this module:

    python -m tests.servers.containers JSON      start it, pass on its log, remove it when it ends

So a container ends with the run as a local server does; what a killed process leaves behind is
removed by testcontainers' own reaper.
"""

import contextlib
import importlib.util
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.servers import cache

ROOT = Path(__file__).resolve().parents[2]
_VERSIONS = cache.VERSIONS
_OPENSEARCH = "/usr/share/opensearch"


@dataclass(frozen=True, slots=True)
class Image:
    """An official image; `paths` are places in it by those of the cache's folder."""

    name: str
    paths: dict = field(default_factory=dict)


# By the name of the cache's part that it stands for.
IMAGES = {
    "kafka": Image(f"apache/kafka:{_VERSIONS['kafka']}", {"lib": "/opt/kafka/libs"}),
    "keycloak": Image(
        f"quay.io/keycloak/keycloak:{_VERSIONS['keycloak']}", {"home": "/opt/keycloak"}
    ),
    "opensearch": Image(
        f"opensearchproject/opensearch:{_VERSIONS['opensearch']}", {"": _OPENSEARCH}
    ),
    "opensearch-secure": Image(
        f"opensearchproject/opensearch:{_VERSIONS['opensearch-secure']}",
        {
            "": _OPENSEARCH,
            "plugins/opensearch-security/config": f"{_OPENSEARCH}/config/opensearch-security",
        },
    ),
    "postgres": Image("postgres:18", {"bin": "/usr/lib/postgresql/18/bin"}),
    "toxiproxy": Image(f"ghcr.io/shopify/toxiproxy:{_VERSIONS['toxiproxy']}",
                       {"toxiproxy-server": "/toxiproxy"}),
    "versitygw": Image(f"versity/versitygw:v{_VERSIONS['versitygw']}",
                       {"versitygw": "/usr/local/bin/versitygw"}),
}  # fmt: skip


def chosen() -> bool:
    """Whether this run's servers are containers."""
    return os.environ.get("SEALTAPE_SERVERS") == "containers"


def lack(part: str) -> str:
    """Why a part cannot be had as a container here; empty when it can."""
    if part not in IMAGES:
        return f"there is no official image for {part} in tests/servers/containers.py"
    if importlib.util.find_spec("testcontainers") is None:
        return "testcontainers is not installed (the dependency group `containers`)"
    try:
        with _engine() as engine:
            engine.ping()
    except Exception as error:  # the client's errors are of many kinds
        return f"no container engine answers ({type(error).__name__}: {error})"
    return ""


def inside(part: str, relative: str) -> str:
    """Where a file of a part is in its image."""
    known = IMAGES[part].paths
    first, _, rest = relative.partition("/")
    for name, left in ((relative, ""), (first, rest), ("", relative)):
        if name in known:
            return f"{known[name]}/{left}".rstrip("/")
    raise KeyError(f"{relative} of {part}")


@dataclass(frozen=True, slots=True)
class Container:
    """What the owner process is told."""

    name: str
    image: str
    argv: list
    env: dict
    cwd: str
    folder: str
    user: str

    def owner(self) -> list:
        """The command line of its owner."""
        return [sys.executable, "-m", "tests.servers.containers", json.dumps(asdict(self))]


def owner_environment() -> dict:
    """What an owner, which is our own program, gets to see: the way to the engine above all."""
    wanted = ("DOCKER_", "TESTCONTAINERS_", "XDG_", "HOME", "PATH")
    kept = {name: value for name, value in os.environ.items() if name.startswith(wanted)}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}


def send(name: str, which: str) -> None:
    """Send a container a signal; SIGSTOP and SIGCONT freeze and thaw it whole."""
    from docker.errors import APIError, NotFound

    with _engine() as engine, contextlib.suppress(NotFound):
        container = engine.containers.get(name)
        if which == "SIGSTOP":
            container.pause()
        elif which == "SIGCONT":
            if container.status == "paused":
                container.unpause()
        else:
            with contextlib.suppress(APIError):  # it has ended
                container.kill(which)


def run(container: Container) -> tuple[int, str]:
    """Run a command in a container to its end: exit status and output."""
    started = _build(container)
    wrapped = started.start().get_wrapped_container()
    try:
        status = wrapped.wait()["StatusCode"]
        return status, wrapped.logs().decode(errors="replace")
    finally:
        started.stop()


@contextlib.contextmanager
def _engine():
    import docker

    with contextlib.closing(docker.from_env()) as client:
        yield client


def _build(container):
    from testcontainers.core.container import DockerContainer

    return (
        DockerContainer(container.image)
        .with_name(container.name)
        .with_envs(**container.env)
        .with_command(container.argv[1:])
        .with_volume_mapping(container.folder, container.folder, "rw")
        # So that a user of the host has a name inside; initdb asks for it.
        .with_volume_mapping("/etc/passwd", "/etc/passwd", "ro")
        .with_kwargs(
            entrypoint=[container.argv[0]],
            network_mode="host",
            user=container.user,
            working_dir=container.cwd,
        )
    )


def main(text: str) -> int:
    """Own one container from its start to its end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    started = _build(Container(**json.loads(text)))
    try:
        wrapped = started.start().get_wrapped_container()
        for line in wrapped.logs(stream=True, follow=True):
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        return wrapped.wait()["StatusCode"]
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        started.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
