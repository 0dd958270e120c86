"""How a topic must be set to keep what the bus promises, and what another setting would cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from sealtape.capture.bus.base import MAX_MESSAGE
from sealtape.capture.bus.kafka.url import KafkaUrl

__all__ = ["TOPIC_BYTES", "Finding", "differences", "wanted"]

TOPIC_BYTES = MAX_MESSAGE + (64 << 10)
"""max.message.bytes: the longest message, its key, and a batch's header around it."""

FOR_EVER = -1

Finding = tuple[Literal["warning", "error"], str]
"""How bad, and in words."""


def wanted(url: KafkaUrl) -> dict[str, str]:
    """Return the settings that a new topic is made with."""
    kept_ms = FOR_EVER if url.retention_s is None else int(url.retention_s * 1000)
    return {
        "cleanup.policy": "delete",
        "compression.type": "producer",
        "max.message.bytes": str(TOPIC_BYTES),
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": str(url.min_isr),
        "retention.bytes": str(FOR_EVER),
        "retention.ms": str(kept_ms),
        "unclean.leader.election.enable": "false",
    }


def differences(url: KafkaUrl, found: Mapping[str, str]) -> list[Finding]:
    """Return what of a topic's settings is not as it should be, the worst first."""
    findings = [
        finding
        for name, good in wanted(url).items()
        if found.get(name) != good
        for finding in _judged(name, good, found.get(name, ""))
    ]
    return sorted(findings)


def _judged(name: str, good: str, actual: str) -> list[Finding]:
    """Judge a setting that is not what a new topic would have; better than good is no finding."""
    told = f"{name} is {actual or 'not told'}, not {good}: "
    if name in _WORDS:
        level, why = _WORDS[name]
        return [(level, told + why)]
    try:
        have, want = int(actual), int(good)
    except ValueError:
        return [("warning", told + "it cannot be judged.")]
    if name == "max.message.bytes" and have < want:
        return [("error", told + "long messages would be refused.")]
    if name == "min.insync.replicas" and have < want:
        return [("error", told + "what is acknowledged may be lost with fewer disks.")]
    if name == "retention.ms" and _shorter(have, want):
        return [("error", told + "frames are deleted earlier than the URL says.")]
    if name == "retention.ms":
        return [("warning", told + "encrypted frames stay on the brokers longer.")]
    return []


_WORDS: dict[str, Finding] = {
    "cleanup.policy": ("error", "compaction deletes frames of the same session."),
    "compression.type": ("warning", "the broker compresses ciphertext, in vain."),
    "message.timestamp.type": (
        "warning",
        "a capture node whose clock is slow has its frames deleted early.",
    ),
    "retention.bytes": ("error", "a burst deletes frames that were not read yet."),
    "unclean.leader.election.enable": ("error", "a leader that lags behind loses what was acked."),
}


def _shorter(have: int, want: int) -> bool:
    return have != FOR_EVER and (want == FOR_EVER or have < want)
