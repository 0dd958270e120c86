"""Looking at a topic and its brokers as `sealtape doctor` does; nothing is changed."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from sealtape.capture.bus.kafka.brokers import Brokers, Description, brokers_of
from sealtape.capture.bus.kafka.protocol import id_text
from sealtape.capture.bus.kafka.trouble import of_code
from sealtape.capture.bus.kafka.url import KafkaUrl, parse_kafka_url
from sealtape.capture.bus.kafka.wanted import differences
from sealtape.capture.bus.kafka.wire import Address
from sealtape.capture.checkup import Check
from sealtape.schemas.errors import StoreError

__all__ = ["check_topic"]

BROKERS, TOPIC, SETTINGS = "bus: brokers", "bus: topic", "bus: topic settings"
REPLICAS, PERMISSIONS = "bus: replicas", "bus: permissions"


async def check_topic(text: str, base: Path, needs: Collection[str] = ()) -> list[Check]:
    """Compare a topic and its brokers with a URL. Raises `SettingsError` for the URL.

    `needs` are what its user must be permitted to do; without any, reading or writing will do.
    """
    url = parse_kafka_url(text, base)
    async with brokers_of(url) as brokers:
        checks, found = await _check_brokers(url, brokers)
        if found is None:
            return checks
        if found.code:
            error = of_code(found.code, f"The topic {url.topic}")
            return [*checks, Check(TOPIC, "error", error.message, error.hint)]
        checks.append(_check_shape(url, found))
        checks += _check_replicas(url, found)
        checks += await _check_settings(url, brokers, found)
        checks.append(_check_permissions(url, found, needs))
        return checks


async def _check_brokers(url: KafkaUrl, brokers: Brokers) -> tuple[list[Check], Description | None]:
    """Connect to every broker of the URL and every one they name."""
    failures: dict[Address, StoreError] = {}
    found: Description | None = None
    for host in url.hosts:
        try:
            found = await brokers.describe(host)
        except StoreError as exc:
            failures[host] = exc
    nodes = sorted(set(found.nodes.values()) - set(url.hosts)) if found is not None else []
    for address in nodes:
        try:
            await brokers.describe(address)
        except StoreError as exc:
            failures[address] = exc
    level = "error" if found is None or set(nodes) & set(failures) else "warning"
    checks = [
        Check(BROKERS, "error" if level == "error" else "warning", exc.message, exc.hint or _HINT)
        for exc in failures.values()
    ]
    if found is not None and not failures:
        checks = [
            Check(BROKERS, "ok", f"Brokers that answer: {len(found.nodes)} of {len(found.nodes)}.")
        ]
    return checks, found


_USES = {"read", "write"}
_HINT = "Is it up, and does its advertised listener name an address that is reached from here?"


def _check_shape(url: KafkaUrl, found: Description) -> Check:
    count = len(found.partitions)
    if count != url.partitions:
        return Check(
            TOPIC,
            "error",
            f"{url.topic} has {count} partitions, not {url.partitions}.",
            "The number never changes: correct `partitions` in the URL.",
        )
    name = f"{url.topic}@{id_text(found.topic_id)}"
    return Check(TOPIC, "ok", f"{name} has {count} partitions.")


def _check_replicas(url: KafkaUrl, found: Description) -> list[Check]:
    """Compare where copies are with where they should be."""
    few = [part.number for part in found.partitions if len(part.replicas) < url.replicas]
    leaderless = [part.number for part in found.partitions if part.leader < 0]
    stuck = [part.number for part in found.partitions if len(part.in_sync) < url.min_isr]
    behind = [part.number for part in found.partitions if len(part.in_sync) < len(part.replicas)]
    checks = []
    if few:
        message = f"Partitions {few} of {url.topic} have fewer than {url.replicas} replicas."
        hint = "kafka-reassign-partitions.sh gives them more, or lower `replicas` in the URL."
        checks.append(Check(REPLICAS, "error", message, hint))
    if leaderless:
        message = f"Partitions {leaderless} of {url.topic} have no leader."
        checks.append(Check(REPLICAS, "error", message, "Bring their brokers back."))
    if stuck:
        message = f"Partitions {stuck} of {url.topic} have fewer than {url.min_isr} in sync."
        hint = "Nothing can be appended to them: bring brokers back."
        checks.append(Check(REPLICAS, "error", message, hint))
    elif behind:
        message = f"Partitions {behind} of {url.topic} have replicas that are not in sync."
        checks.append(Check(REPLICAS, "warning", message, "Look at the brokers that are missing."))
    if url.min_isr >= url.replicas > 1:
        message = (
            f"With min_isr={url.min_isr} of {url.replicas} replicas one lost broker stops all."
        )
        checks.append(Check(REPLICAS, "warning", message, "Use replicas=3 and min_isr=2."))
    if url.replicas == 1:
        message = f"{url.topic} has one copy: its disk is all that keeps what was acknowledged."
        checks.append(Check(REPLICAS, "warning", message, "Use replicas=3 and min_isr=2."))
    return checks or [Check(REPLICAS, "ok", f"All {url.replicas} replicas are in sync.")]


async def _check_settings(url: KafkaUrl, brokers: Brokers, found: Description) -> list[Check]:
    address = next(iter(found.nodes.values()))
    try:
        settings = await brokers.settings(address)
    except StoreError as exc:
        hint = "Allow DescribeConfigs on the topic to see them; ingest's alarm needs it too."
        return [Check(SETTINGS, "warning", exc.message, hint)]
    checks = []
    for level, message in differences(url, settings):
        name = message.partition(" ")[0]
        hint = f"kafka-configs.sh --alter --topic {url.topic} --add-config {name}=…, or the URL."
        checks.append(Check(SETTINGS, level, message, hint))
    return checks or [Check(SETTINGS, "ok", f"The settings of {url.topic} keep its promises.")]


def _check_permissions(url: KafkaUrl, found: Description, needs: Collection[str]) -> Check:
    may = found.operations
    if may is None:
        return Check(PERMISSIONS, "ok", "The broker does not tell what we may do.")
    told = ", ".join(sorted(may)) or "do nothing"
    lacking = " and ".join(sorted(set(needs) - may)) or ("" if may & _USES else "read or write")
    if lacking:
        message = f"With {url.topic} we may only {told}, and must {lacking}."
        hint = "Give this user the ACLs that docs/kafka.md lists for the room."
        return Check(PERMISSIONS, "error", message, hint)
    return Check(PERMISSIONS, "ok", f"With {url.topic} we may {told}.")
