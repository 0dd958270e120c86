"""Apache Kafka in KRaft mode: one broker, three of them, and one behind TLS with users.

    kafka_server.bootstrap                  "127.0.0.1:P", no TLS, no users
    kafka_alone                             the same for one test file: .stop() .kill() .pause() …
    kafka_cluster.brokers[1].kill()         three brokers for one test file, min.insync.replicas 2

Topics are never made by writing to them. The broker with TLS is in `tests/servers/kafka_tls.py`.
"""

import asyncio
import base64
import contextlib
import io
import secrets
import socket
import struct
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tests.servers import availability, cache, jvm
from tests.servers.process import (
    LOOPBACK,
    Home,
    Server,
    ServerError,
    Spec,
    answers,
    at,
    free_port,
    give,
    run_tool,
)

JAVA = 17
_JVM = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Dlog4j2.disableJmx=true")
_LOGGING = """\
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %m (%c)%n
"""
ONE = """\
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
default.replication.factor=1
min.insync.replicas=1
"""
_THREE = """\
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
default.replication.factor=3
min.insync.replicas=2
"""
_PROXIED = """\
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
"""
_COMMON = """\
controller.listener.names=CONTROLLER
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=2
transaction.state.log.num.partitions=2
share.coordinator.state.topic.num.partitions=2
controlled.shutdown.enable=true
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=4000
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1000
"""


def _build(folder):
    kafka, log4j = cache.VERSIONS["kafka"], cache.VERSIONS["log4j"]
    cache.maven_jars(
        [
            f"org.apache.kafka:kafka_2.13:{kafka}",
            f"org.apache.logging.log4j:log4j-slf4j-impl:{log4j}",
            f"org.apache.logging.log4j:log4j-core:{log4j}",
        ],
        folder / "lib",
    )


cache.register(cache.Recipe("kafka", cache.VERSIONS["kafka"], _build, needs=("mvn",), java=JAVA))


def cluster_id() -> str:
    """A new id for a cluster: 22 characters of base64url."""
    return base64.urlsafe_b64encode(uuid.UUID(bytes=secrets.token_bytes(16)).bytes).decode()[:22]


def broker_ids(port) -> set[int]:
    """The brokers that the cluster counts as alive, asked at a port: DescribeCluster, version 0."""
    request = struct.pack(">hhih", 60, 0, 1, -1) + b"\0" + b"\0\0"
    with socket.create_connection((LOOPBACK, port), timeout=3) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        stream = connection.makefile("rb")
        answer = io.BytesIO(stream.read(struct.unpack(">i", stream.read(4).ljust(4, b"\0"))[0]))
        stream.close()
    answer.read(4 + 1 + 4 + 2)  # correlation, tags, throttle, error
    _text(answer), _text(answer), answer.read(4)  # message, cluster, controller
    found = set()
    for _ in range(_varint(answer) - 1):
        found.add(int.from_bytes(answer.read(4)))
        _text(answer), answer.read(4), _text(answer), answer.read(1)  # host, port, rack, tags
    return found


def _text(stream):
    return stream.read(max(_varint(stream) - 1, 0))


def _varint(stream):
    value = shift = 0
    while True:
        byte = (stream.read(1) or b"\0")[0]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value


class KafkaServer(Server):
    """One broker that is its own controller."""

    KIND, PARTS = "kafka", ("kafka",)
    STOP_S = 20.0

    @classmethod
    def plan(cls, place, *, behind=""):
        port, controller, inner = free_port(), free_port(), free_port()
        properties = ONE + "process.roles=broker,controller\n"
        listeners = f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller}"
        if behind:
            advertised = f"PLAINTEXT://{LOOPBACK}:{port},PROXIED://{behind}"
            properties += f"advertised.listeners={advertised}\n{_PROXIED}"
            listeners += f",PROXIED://{LOOPBACK}:{inner}"
        facts = cls.written(place, properties, port=port, listeners=listeners,
                            controller=f"1@{LOOPBACK}:{controller}")  # fmt: skip
        return facts | {"inner": inner}

    @property
    def inner(self) -> str:
        """ "host:port" for the proxy that listens where `own(behind="host:port")` said.

        A broker sends its clients where it advertises, so a proxy must be advertised."""
        return f"{LOOPBACK}:{self.facts['inner']}"

    @staticmethod
    def written(place, properties, *, port, controller, listeners, node=1, identity="", scram=()):
        """Write the settings, format the data folder, and return the facts."""
        text = f"{_COMMON}{properties}node.id={node}\nlog.dirs={place}/data\n"
        text += f"controller.quorum.voters={controller}\nlisteners={listeners}\n"
        (place / "server.properties").write_text(text)
        (place / "log4j2.properties").write_text(_LOGGING)
        users = [one for name, password in scram for one in
                 ("--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]")]  # fmt: skip
        give(place)
        java = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp",
                f"{at(place, 'kafka', 'lib')}/*"]  # fmt: skip
        run_tool(place, "kafka", [
            *java, "kafka.tools.StorageTool", "format",
            f"--cluster-id={identity or cluster_id()}", "-c", place / "server.properties", *users,
        ])  # fmt: skip
        return {"port": port, "node": node}

    @property
    def bootstrap(self) -> str:
        """ "host:port" for clients without TLS and users."""
        return f"{LOOPBACK}:{self.facts['port']}"

    def spec(self):
        logging = f"-Dlog4j2.configurationFile={self.place}/log4j2.properties"
        scratch = f"-Djava.io.tmpdir={self.place}/tmp"  # for the native libraries of compression
        libraries = f"{self.at('kafka', 'lib')}/*"
        return Spec([self.java(JAVA), *_JVM, *jvm.compilers(), logging, scratch, "-cp", libraries,
                     "kafka.Kafka", self.place / "server.properties"])  # fmt: skip

    def healthy(self):
        return answers(self.facts["port"]) and self.facts["node"] in broker_ids(self.facts["port"])


class KafkaMember(KafkaServer):
    """A broker, or the controller (node 0), of a cluster."""

    KIND = "kafka-member"

    @classmethod
    def plan(cls, place, *, node, identity, port, controller):
        role, name = ("broker", "PLAINTEXT") if node else ("controller", "CONTROLLER")
        return cls.written(place, f"{_THREE}process.roles={role}\n",
                           port=port, controller=controller, node=node, identity=identity,
                           listeners=f"{name}://{LOOPBACK}:{port}")  # fmt: skip

    def healthy(self):
        return answers(self.facts["port"]) if self.facts["node"] == 0 else super().healthy()


class KafkaCluster:
    """Three brokers, for one user alone, and a controller that stays while brokers are killed."""

    KIND, PARTS = "kafka-cluster", ("kafka",)

    def __init__(self, controller, brokers):
        self.controller = controller
        self.brokers = brokers

    @classmethod
    @contextlib.contextmanager
    def own(cls):
        """Start all four together."""
        home, name, identity, port = Home.current(), secrets.token_hex(3), cluster_id(), free_port()
        with contextlib.ExitStack() as stack:
            members = []
            for node in range(4):
                member = KafkaMember.planned(
                    home, f"kafka-{name}-{node}", node=node, identity=identity,
                    port=free_port() if node else port, controller=f"0@{LOOPBACK}:{port}",
                )  # fmt: skip
                stack.callback(member.remove)
                member.spawn()
                members.append(member)
            cluster = cls(members[0], members[1:])
            cluster.heal()
            yield cluster

    @property
    def bootstrap(self) -> str:
        """All three as "host:port,host:port,host:port"."""
        return ",".join(broker.bootstrap for broker in self.brokers)

    def leader(self, topic, partition=0, timeout=30.0):
        """The broker that leads a partition; waits while there is none that runs."""
        deadline = time.monotonic() + timeout
        while True:
            running = [broker for broker in self.brokers if broker.running]
            known = ",".join(broker.bootstrap for broker in running)
            try:
                with ThreadPoolExecutor(1) as pool:  # the caller may be on an event loop
                    number = pool.submit(asyncio.run, _leader(known, topic, partition)).result()
                if number > 0 and self.brokers[number - 1] in running:
                    return self.brokers[number - 1]
                error = f"it says {number}"
            except KafkaError as found:
                error = repr(found)
            if time.monotonic() > deadline:
                raise ServerError(f"no broker leads {topic}/{partition}: {error}")
            time.sleep(0.2)

    def heal(self, timeout=60.0) -> None:
        """Start what does not run, let go on what is paused, and wait until all count as alive."""
        for member in (self.controller, *self.brokers):
            if member.running:
                member.resume()
            else:
                member.spawn()
        deadline = time.monotonic() + timeout
        while not all(_sees(broker, {1, 2, 3}) for broker in self.brokers):
            if time.monotonic() > deadline:
                tails = "\n".join(f"{one.name}:\n{one.tail(8)}" for one in self.brokers)
                raise ServerError(f"the brokers did not find each other\n{tails}")
            time.sleep(0.1)


def _sees(broker, ids):
    try:
        return broker_ids(broker.facts["port"]) == ids
    except OSError:
        return False


async def _leader(bootstrap, topic, partition):
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        (described,) = await admin.describe_topics([topic])
    finally:
        await admin.close()
    return next(p["leader"] for p in described["partitions"] if p["partition"] == partition)


@pytest.fixture(scope="session")
def kafka_server():
    """The broker that all tests of the run share; choose topic names of your own."""
    availability.need(KafkaServer)
    return KafkaServer.shared()


@pytest.fixture(scope="module")
def kafka_alone():
    """A broker for this test file alone, to stop, kill and pause."""
    availability.need(KafkaServer)
    with KafkaServer.own() as server:
        yield server


@pytest.fixture(scope="module")
def kafka_cluster():
    """Three brokers for this test file alone."""
    availability.need(KafkaCluster)
    with KafkaCluster.own() as cluster:
        yield cluster
