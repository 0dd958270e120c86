"""The collector's configuration agrees with the rooms' log lines, ports and pages."""

import json
import logging
import re
from datetime import datetime
from pathlib import Path

import yaml

from sealtape.capture.logs import JsonFormat
from sealtape.indexer.cli.deployment import PRODUCTION_TOML

CONFIG = yaml.safe_load(
    (Path(__file__).resolve().parents[2] / "deploy/opentelemetry/collector.yaml").read_text()
)


def test_pipelines_name_what_is_there():
    for pipeline in CONFIG["service"]["pipelines"].values():
        for part in ("receivers", "processors", "exporters"):
            assert set(pipeline[part]) <= set(CONFIG[part])


def test_it_scrapes_where_a_new_deployment_listens():
    (job,) = CONFIG["receivers"]["prometheus"]["config"]["scrape_configs"]
    wanted = set(re.findall(r'^metrics = "(.*)"', PRODUCTION_TOML, re.MULTILINE))
    assert set(job["static_configs"][0]["targets"]) == wanted


def test_it_reads_what_a_line_has():
    record = logging.LogRecord("capture.worker", logging.INFO, "", 0, "hello", (), None)
    line = json.loads(JsonFormat({"room": "capture", "node": "node-1"}).format(record))
    parser, *moves = CONFIG["receivers"]["filelog"]["operators"]
    used = {parser["timestamp"]["parse_from"], parser["severity"]["parse_from"]}
    used |= {move["from"] for move in moves}
    assert {name.removeprefix("attributes.") for name in used} <= set(line)
    # Go's layout of the same form: a reference time with three digits behind the second.
    datetime.strptime(line["ts"], "%Y-%m-%dT%H:%M:%S.%fZ")
    assert len(line["ts"]) == len(parser["timestamp"]["layout"])
