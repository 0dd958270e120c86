"""Requests of Kafka's protocol in the versions that name a topic by its id.

aiokafka has the others. A topic id names one topic for ever (KIP-516): a topic that was deleted and
made anew has another, and a broker answers a request for the old one with an error instead of with
the new one's messages. Field order and types: https://kafka.apache.org/protocol.
"""

from __future__ import annotations

import base64
from io import BytesIO
from typing import Any

from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.fetch import FetchRequest_v11
from aiokafka.protocol.produce import ProduceRequest_v7
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

__all__ = ["FetchById", "Id", "MetadataById", "ProduceById", "id_text"]

ID_SIZE = 16

_TEXT = CompactString("utf-8")
_TAGS = ("tags", TaggedFields)
_NO_TAGS: dict[int, bytes] = {}


class Id(AbstractType[bytes]):
    """A UUID: 16 bytes as they are."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        value = data.read(ID_SIZE)
        if len(value) != ID_SIZE:
            raise ValueError("Buffer underrun decoding a UUID")
        return value


def id_text(topic_id: bytes) -> str:
    """Return a topic id as Kafka's tools show it: 22 characters of base64url."""
    return base64.urlsafe_b64encode(topic_id).decode().rstrip("=")


# -- Metadata --------------------------------------------------------------------------------------


class _MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(("node", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), _TAGS),
        ),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", _TEXT),
                ("topic_id", Id),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("operations", Int32),
                _TAGS,
            ),
        ),
        ("cluster_operations", Int32),
        _TAGS,
    )


class _MetadataRequest(RequestStruct):
    API_KEY = 3
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", Id), ("name", _TEXT), _TAGS)),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_operations", Boolean),
        ("include_topic_operations", Boolean),
        _TAGS,
    )


class MetadataById(Request[_MetadataRequest]):
    """What the brokers say of one topic, and which operations on it they allow us."""

    API_KEY = 3

    def __init__(self, topic: str) -> None:
        """Name the topic."""
        self._topic = topic

    def build(self, request_struct_class: type[_MetadataRequest]) -> _MetadataRequest:
        topics = [(bytes(ID_SIZE), self._topic, _NO_TAGS)]
        return request_struct_class(topics, False, False, True, _NO_TAGS)


# -- Produce ---------------------------------------------------------------------------------------


class _ProduceResponse(Response):
    API_KEY = 0
    API_VERSION = 13
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic_id", Id),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("offset", Int64),
                        ("timestamp", Int64),
                        ("log_start_offset", Int64),
                        (
                            "record_errors",
                            CompactArray(("index", Int32), ("message", _TEXT), _TAGS),
                        ),
                        ("error_message", _TEXT),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        ("throttle_time_ms", Int32),
        _TAGS,
    )


class _ProduceRequest(RequestStruct):
    API_KEY = 0
    API_VERSION = 13
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _ProduceResponse
    SCHEMA = Schema(
        ("transactional_id", _TEXT),
        ("required_acks", Int16),
        ("timeout", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", Id),
                (
                    "partitions",
                    CompactArray(("partition", Int32), ("records", CompactBytes), _TAGS),
                ),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class ProduceById(Request[ProduceRequest_v7 | _ProduceRequest]):
    """One record batch for one partition, acknowledged by all replicas in sync.

    Brokers before 4.1 take a topic's name only; there the periodic look at the id has to do.
    """

    API_KEY = 0

    def __init__(
        self, topic: str, topic_id: bytes, partition: int, records: bytes, timeout_ms: int
    ) -> None:
        """`timeout_ms`: how long the leader may wait for its replicas."""
        self._topic = topic
        self._id = topic_id
        self._partition = partition
        self._records = records
        self._timeout_ms = timeout_ms

    def build(
        self, request_struct_class: type[ProduceRequest_v7 | _ProduceRequest]
    ) -> ProduceRequest_v7 | _ProduceRequest:
        if request_struct_class is ProduceRequest_v7:
            named = [(self._topic, [(self._partition, self._records)])]
            return ProduceRequest_v7(None, -1, self._timeout_ms, named)
        by_id = [(self._id, [(self._partition, self._records, _NO_TAGS)], _NO_TAGS)]
        return _ProduceRequest(None, -1, self._timeout_ms, by_id, _NO_TAGS)

    @staticmethod
    def outcome(response: Any) -> tuple[int, int]:
        """Return (error code, offset of the first record) of a response in either version."""
        partition = response.topics[0][1][0]
        return partition[1], partition[2]


# -- Fetch -----------------------------------------------------------------------------------------


class _FetchResponse(Response):
    API_KEY = 1
    API_VERSION = 13
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("session_id", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", Id),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("highwater_offset", Int64),
                        ("last_stable_offset", Int64),
                        ("log_start_offset", Int64),
                        (
                            "aborted_transactions",
                            CompactArray(("producer_id", Int64), ("first_offset", Int64), _TAGS),
                        ),
                        ("preferred_read_replica", Int32),
                        ("records", CompactBytes),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        _TAGS,
    )


class _FetchRequest(RequestStruct):
    API_KEY = 1
    API_VERSION = 13
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _FetchResponse
    SCHEMA = Schema(
        ("replica_id", Int32),
        ("max_wait_ms", Int32),
        ("min_bytes", Int32),
        ("max_bytes", Int32),
        ("isolation_level", Int8),
        ("session_id", Int32),
        ("session_epoch", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", Id),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("current_leader_epoch", Int32),
                        ("fetch_offset", Int64),
                        ("last_fetched_epoch", Int32),
                        ("log_start_offset", Int64),
                        ("max_bytes", Int32),
                        _TAGS,
                    ),
                ),
                _TAGS,
            ),
        ),
        (
            "forgotten_topics",
            CompactArray(("topic_id", Id), ("partitions", CompactArray(Int32)), _TAGS),
        ),
        ("rack_id", _TEXT),
        _TAGS,
    )


class FetchById(Request[FetchRequest_v11 | _FetchRequest]):
    """Record batches of one partition from an offset on, without a fetch session.

    Brokers before 3.1 take a topic's name only; there the periodic look at the id has to do.
    """

    API_KEY = 1

    def __init__(
        self,
        topic: str,
        topic_id: bytes,
        partition: int,
        offset: int,
        *,
        epoch: int,
        max_bytes: int,
        wait_ms: int,
    ) -> None:
        """`epoch`: of the leader that is asked; `wait_ms`: how long it may wait for a byte."""
        self._topic = topic
        self._id = topic_id
        self._partition = partition
        self._offset = offset
        self._epoch = epoch
        self._max_bytes = max_bytes
        self._wait_ms = wait_ms

    def build(
        self, request_struct_class: type[FetchRequest_v11 | _FetchRequest]
    ) -> FetchRequest_v11 | _FetchRequest:
        head = (-1, self._wait_ms, 1, self._max_bytes, 0, 0, -1)
        if request_struct_class is FetchRequest_v11:
            asked = (self._partition, self._epoch, self._offset, -1, self._max_bytes)
            return FetchRequest_v11(*head, [(self._topic, [asked])], [], "")
        place = (self._partition, self._epoch, self._offset)
        by_id = (*place, -1, -1, self._max_bytes, _NO_TAGS)
        return _FetchRequest(*head, [(self._id, [by_id], _NO_TAGS)], [], "", _NO_TAGS)

    @staticmethod
    def outcome(response: Any) -> tuple[int, bytes]:
        """Return (error code, record batches) of a response in either version."""
        if response.error_code:
            return response.error_code, b""
        found = response.topics[0][1][0]
        records = found[7]
        return found[1], records or b""
