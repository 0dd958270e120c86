"""Kafka's command line tools, which are not among the broker's jars.

kafka_console("org.apache.kafka.tools.consumer.ConsoleConsumer", "--topic", …)   its output
"""

import subprocess

import pytest

from tests.servers import availability, cache, jvm
from tests.servers.process import ServerError

JAVA = 17


class KafkaTools:
    """What a test needs for them."""

    KIND, PARTS = "Kafka's tools", ("kafka-tools",)


def _build(folder):
    version = cache.VERSIONS["kafka-tools"]
    cache.maven_jars([f"org.apache.kafka:kafka-tools:{version}"], folder / "lib")


cache.register(
    cache.Recipe("kafka-tools", cache.VERSIONS["kafka-tools"], _build, needs=("mvn",), java=JAVA)
)


@pytest.fixture(scope="session")
def kafka_console():
    """Run one of the tools by its class and return what it prints."""
    availability.need(KafkaTools)

    def run(name, *arguments, timeout=60):
        done = subprocess.run(
            [jvm.find(JAVA), "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
             "-cp", f"{cache.folder('kafka-tools')}/lib/*", name, *map(str, arguments)],
            capture_output=True, text=True, check=False, timeout=timeout,
        )  # fmt: skip
        if done.returncode:
            raise ServerError(f"{name} failed: {done.stdout}{done.stderr}")
        return done.stdout

    return run
