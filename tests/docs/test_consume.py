"""What docs/consume.md shows is what deploy/siem holds, and its consumer reads a real Kafka."""

import asyncio
import json
import re
import sys
import tomllib

from sealtape.capture.bus import open_bus
from sealtape.ingest.relay import append_events
from sealtape.schemas.ocsf import lifecycle_event, session_started, statement
from tests.docs.errors_page import PAGE
from tests.factories.kafka_topics import new_topic, topic_of
from tests.vectors import generate_events as vectors

TEXT = (PAGE.parent / "consume.md").read_text(encoding="utf-8")
SIEM = PAGE.parent.parent / "deploy" / "siem"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCES = FENCE.findall(TEXT)
TOPIC = "sealtape.events"


def test_the_page_shows_the_files_there_are():
    shown = {body for _, body in FENCES}
    files = sorted(path for path in SIEM.iterdir() if path.is_file())
    assert len(files) == 4
    for path in files:
        assert path.read_text(encoding="utf-8") in shown, path.name
        assert f"deploy/siem/{path.name}" in TEXT


def test_vector():
    found = tomllib.loads((SIEM / "vector.toml").read_text())
    source, once = found["sources"]["sealtape"], found["transforms"]["once"]
    assert (source["type"], source["topics"], source["decoding"]) == (
        "kafka", [TOPIC], {"codec": "json"},
    )  # fmt: skip
    assert once["fields"]["match"] == ["metadata.uid"]
    names = found["sources"].keys() | found["transforms"].keys()
    for part in (*found["transforms"].values(), *found["sinks"].values()):
        assert set(part["inputs"]) <= names


def test_logstash():
    text = (SIEM / "logstash.conf").read_text()
    code = re.sub(r'"[^"]*"|\'[^\']*\'|#.*', "", text)
    assert code.count("{") == code.count("}") == 6
    assert f'topics => ["{TOPIC}"]' in text
    assert 'document_id => "%{[metadata][uid]}"' in text


def test_splunk():
    found = json.loads((SIEM / "splunk-connect.json").read_text())
    assert found["config"]["topics"] == TOPIC
    assert found["config"]["splunk.hec.ack.enabled"] == "true"
    source_type = found["config"]["splunk.sourcetypes"]
    assert f"[{source_type}]" in (SIEM / "props.conf").read_text()


def consumer():
    (body,) = [body for language, body in FENCES if language == "python"]
    return body


def test_the_consumer_is_short():
    assert len([line for line in consumer().splitlines() if line.strip()]) <= 12


def made():
    row = next(row for row in vectors.lifecycle() if row["kind"] == "gap")
    return [
        session_started(vectors.session()),
        statement(vectors.command(), vectors.session()),
        statement(vectors.command(**vectors.DONE), vectors.session()),
        statement(vectors.command(**vectors.DONE), vectors.session()),  # it comes twice
        lifecycle_event("gap", row["key"], row["payload"].encode(), vectors.TS_NS),
    ]


async def test_the_consumer_reads_a_real_kafka(kafka_server, tmp_path):
    url = await new_topic(kafka_server.bootstrap, partitions=3)
    bus = open_bus(url, tmp_path)
    await bus.start()
    script = tmp_path / "consumer.py"
    script.write_text(consumer())
    await append_events(bus, made()[:2])
    process = await asyncio.create_subprocess_exec(
        sys.executable, script, kafka_server.bootstrap, topic_of(url),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        lines = [await asyncio.wait_for(process.stdout.readline(), 60) for _ in range(2)]
        await append_events(bus, made()[2:])
        lines += [await asyncio.wait_for(process.stdout.readline(), 60) for _ in range(2)]
    finally:
        process.kill()
        await process.wait()
        await bus.close()
    read = [line.decode().split() for line in lines]
    assert [words[1] for words in read] == ["session-start", "statement", "statement", "gap"]
    assert lines[0].decode().rstrip().endswith("ann@example.org opened a session on shop.")
    assert {words[0] for words in read} == {str(vectors.MS)}


async def test_kafkas_console_reads_it_too(kafka_server, kafka_console, tmp_path):
    (line,) = re.findall(r"^kafka-console-consumer\.sh (.*)$", TEXT, re.MULTILINE)
    url = await new_topic(kafka_server.bootstrap, partitions=3)
    bus = open_bus(url, tmp_path)
    await bus.start()
    await append_events(bus, made())
    await bus.close()
    words = line.replace("127.0.0.1:9092", kafka_server.bootstrap).replace(TOPIC, topic_of(url))
    tool = "org.apache.kafka.tools.consumer.ConsoleConsumer"
    out = await asyncio.to_thread(kafka_console, tool, *words.split(), "--max-messages", 5)
    codes = [json.loads(each)["metadata"]["event_code"] for each in out.splitlines()]
    assert codes == ["session-start", "statement", "statement", "statement", "gap"]
