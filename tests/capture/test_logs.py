import asyncio
import contextlib
import io
import json
import logging
import os
import signal
import sys
import threading
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.capture.identity import DevelopmentIssuer
from sealtape.capture.logs import (
    SESSION,
    JsonFormat,
    LogWriter,
    TextFormat,
    configure,
    without_secrets,
)
from sealtape.schemas.errors import StoreBusy
from sealtape.schemas.trust import format_node_key
from sealtape.schemas.wraps import X25519, generate
from tests.capture.node_lab import ISSUER, NodeLab, node
from tests.capture.postgres.gateway_world import psql
from tests.servers.postgres import shared_server

TOKEN = DevelopmentIssuer.generate().mint(
    issuer=ISSUER, audience="sealtape", user="ada", groups=[], now_s=1
)
PASSWORD = "hunter2-hunter2"


def private_texts():
    private, _ = generate("auditor", X25519, lambda size: bytes(range(size)))
    node_key = format_node_key("n.test", Ed25519PrivateKey.generate())
    return [private.text(), node_key, DevelopmentIssuer.generate().to_pem()]


LEAKS = [
    f"connection to postgresql://app:{PASSWORD}@db:5432/shop failed",
    f"kafka://ada:{PASSWORD}/with@slash@broker:9092/topic",
    f"login failed: password={PASSWORD}, try again",
    f"connect(host='db', password='{PASSWORD}')",
    f'{{"password": "{PASSWORD}", "user": "ada"}}',
    f"client_secret={PASSWORD}&grant_type=x",
    f"{{'access_token': '{PASSWORD}'}}",
    f"SASL_PASSWORD={PASSWORD}",
    f"Authorization: Bearer {PASSWORD}",
    f"{{'Authorization': 'Basic {PASSWORD}=='}}",
    f"header bearer {PASSWORD}",
    f"Cookie: session={PASSWORD}; other={PASSWORD}",
    f"aws_secret_access_key={PASSWORD}",
    f"400 Bad Request: <Error><Code>ExpiredToken</Code><Token-0>{PASSWORD}</Token-0></Error>",
    f"<CanonicalRequest>PUT\nx-amz-security-token:{PASSWORD}\n</CanonicalRequest>",
    f"X-Vault-Token: {PASSWORD}",
]


@pytest.mark.parametrize("leak", LEAKS)
def test_what_looks_like_a_password_is_taken_out(leak):
    told = without_secrets(leak)
    assert PASSWORD not in told
    assert "[secret]" in told


def test_tokens_and_private_keys_are_taken_out():
    for secret in [TOKEN, TOKEN.rsplit(".", 1)[0], *private_texts()]:
        told = without_secrets(f"before {secret.strip()} after")
        assert told.startswith("before ")
        assert "[secret]" in told
        for piece in secret.split():
            assert len(piece) < 30 or piece not in told


@pytest.mark.parametrize(
    "text",
    [
        "The token is not valid: its signature does not verify.",
        "Give your OIDC token as the password, for example in PGPASSWORD.",
        "password_file of postgresql: names it; check that it is there and ours.",
        "a token: it has expired",
        "https://login.example/keys cannot be had",
        "segment seg/v1/tenant=main/class=standard/2026-11-22/0190.parquet",
        "session " + "ab" * 16,
    ],
)
def test_what_is_no_secret_stays(text):
    assert without_secrets(text) == text


def test_a_text_without_end_gets_one():
    start = time.perf_counter()
    told = without_secrets("a" * (8 << 20))
    assert len(told) < 40_000
    assert "8388608 characters" in told
    assert without_secrets("=" * 32_000) == "=" * 32_000
    assert time.perf_counter() - start < 5


@pytest.fixture
def logged():
    """A logger, and what it wrote as JSON and as text."""
    logger = logging.getLogger("sealtape.capture.test")
    streams = {"json": io.StringIO(), "text": io.StringIO()}
    formats = {"json": JsonFormat({"room": "capture", "node": "n1"}), "text": TextFormat()}
    writers = {}
    for name, stream in streams.items():
        writers[name] = LogWriter(stream)
        writers[name].setFormatter(formats[name])
        logger.addHandler(writers[name])
    logger.setLevel(logging.INFO)

    def told():
        for writer in writers.values():
            writer.close()
        lines = [json.loads(line) for line in streams["json"].getvalue().splitlines()]
        return lines, streams["text"].getvalue()

    yield logger, told
    for writer in writers.values():
        logger.removeHandler(writer)
        writer.close()


def test_a_line_says_who_when_and_what(logged):
    logger, told = logged
    before = time.time()
    logger.info("refused %d", 3, extra={"reason": "token-expired", "times": 2, "path": ("a",)})
    ((line,), text) = told()
    moment = line.pop("ts")
    assert line == {
        "level": "info", "event": "refused 3", "logger": "capture.test", "room": "capture",
        "node": "n1", "reason": "token-expired", "times": 2, "path": "('a',)",
    }  # fmt: skip
    assert moment.endswith("Z")
    assert abs(_seconds(moment) - before) < 60
    assert (
        text == f"{moment} INFO capture.test: refused 3 reason=token-expired times=2 path=('a',)\n"
    )


def _seconds(moment):
    from datetime import datetime

    return datetime.fromisoformat(moment).timestamp()


def test_an_exception_is_its_class_message_and_code(logged):
    logger, told = logged
    try:
        try:
            raise ConnectionError(f"postgresql://app:{PASSWORD}@db refused {TOKEN}")
        except ConnectionError as exc:
            raise StoreBusy("The ledger is away.", retry_after_s=1) from exc
    except StoreBusy:
        logger.exception("publishing")
    ((line,), text) = told()
    assert line["error"] == {
        "class": "StoreBusy", "message": "The ledger is away.", "code": "store-busy",
    }  # fmt: skip
    assert "ConnectionError: postgresql://app:[secret]@db refused [secret]" in line["stack"]
    assert "Traceback" in text
    for output in (json.dumps(line), text):
        assert PASSWORD not in output
        assert TOKEN not in output


def test_secrets_do_not_leave_by_arguments_fields_or_errors(logged):
    logger, told = logged
    logger.error("cannot connect: %s", Exception(f"password={PASSWORD}"), extra={"url": LEAKS[0]})
    try:
        raise ValueError(f"bad header Authorization: Bearer {TOKEN}")
    except ValueError:
        logger.exception("asking the provider")
    lines, text = told()
    assert len(lines) == 2
    for output in (json.dumps(lines), text):
        assert PASSWORD not in output
        assert TOKEN not in output


async def test_a_line_belongs_to_the_session_its_task_serves(logged):
    logger, told = logged

    async def serve(name):
        SESSION.set(name)
        await asyncio.sleep(0)
        logger.info("inside")

    await asyncio.gather(serve("aa"), serve("bb"))
    logger.info("outside")
    logger.info("named", extra={"session": "cc"})
    lines, text = told()
    assert [line.get("session") for line in lines] == ["aa", "bb", None, "cc"]
    assert "inside session=aa\n" in text


def test_nobody_forges_a_line(logged, monkeypatch):
    logger, told = logged
    # What is left of a character is nothing that pytest's own capture could send to its controller.
    monkeypatch.setattr(logger, "propagate", False)
    logger.info("target %s", "x\n2026 CRITICAL all is lost\x1b[2J\x00", extra={"a": "\r\n\x9b"})
    logger.info("half a character: %s", "\udc80")
    lines, text = told()
    assert [line["event"] for line in lines] == [
        "target x\n2026 CRITICAL all is lost\x1b[2J\x00",
        "half a character: \udc80",
    ]
    assert len(text.splitlines()) == 2
    assert "\x1b" not in text


def test_who_does_not_read_holds_nobody_up():
    inside, outside = os.pipe()
    with os.fdopen(outside, "w") as stream:
        writer = LogWriter(stream, limit=50)
        writer.setFormatter(TextFormat())
        record = logging.LogRecord("x", logging.INFO, "", 0, "m" * 4000, (), None)
        start = time.perf_counter()
        for _ in range(500):  # 2 MB; a pipe takes 64 KiB
            writer.handle(record)
        assert time.perf_counter() - start < 5
        read = bytearray()

        def drain():
            while data := os.read(inside, 1 << 16):
                read.extend(data)

        reader = threading.Thread(target=drain)
        reader.start()
        while not writer._lines.empty():
            time.sleep(0.01)
        writer.handle(record)
        writer.close()
    reader.join()
    os.close(inside)
    assert b" lines were not logged here" in read
    assert read.count(b"mmm INFO") == 0
    assert 50 <= read.count(b" INFO x: mmm") <= 120


def test_who_closed_the_pipe_holds_nobody_up():
    inside, outside = os.pipe()
    os.close(inside)
    stream = os.fdopen(outside, "w")
    writer = LogWriter(stream)
    for _ in range(3):
        writer.handle(logging.makeLogRecord({"msg": "x"}))
    writer.close()
    with contextlib.suppress(OSError):
        stream.close()


def test_what_cannot_be_formatted_stops_nobody(capsys):
    writer = LogWriter(io.StringIO())
    writer.handle(logging.makeLogRecord({"msg": "%d", "args": ("x",)}))
    writer.close()
    assert "Logging error" in capsys.readouterr().err


def test_configured_twice_a_line_is_written_once(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        configure("text", room="ingest", node="n1")
        writer = configure("json", room="ingest", node="n1", worker="w")
        logging.getLogger("sealtape.ingest").warning("once")
        logging.getLogger("aiokafka").info("never")
        writer.close()
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    (line,) = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (line["room"], line["worker"], line["event"]) == ("ingest", "w", "once")


async def test_a_node_logs_sessions_and_refusals_and_no_secret(tmp_path):
    lab = NodeLab(tmp_path, shared_server())
    lab.path.write_text(
        lab.path.read_text().replace("[deployment]", '[deployment]\nlog_format = "json"')
    )
    async with node(lab) as (process, ready):
        dsn = lab.dsn(ready["listeners"]["postgres"])
        token = dsn.partition("password='")[2].partition("'")[0]
        code, _, err = await psql(dsn, "-c", "select 'private-literal'")
        assert code == 0, err
        await psql(lab.dsn(ready["listeners"]["postgres"], dbname="made-up"), "-c", "")
        await psql(dsn.replace(token, token[:-4] + "AAAA"), "-c", "")
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        told = (await asyncio.wait_for(process.stderr.read(), 30)).decode()
        await process.wait()
    lines = [json.loads(line) for line in told.splitlines()]
    opened, ended = (
        next(line for line in lines if line["event"] == f"session {what}")
        for what in ("opened", "ended")
    )
    assert opened["session"] == ended["session"]
    assert (opened["target"], ended["reason"]) == ("shop", "client")
    refused = [line for line in lines if line["event"] == "refused"]
    assert [line["reason"] for line in refused] == ["no-target", "token-invalid"]
    for secret in (token, token[:-4], "scram-secret", "private-literal", "made-up", "ada"):
        assert secret not in told
