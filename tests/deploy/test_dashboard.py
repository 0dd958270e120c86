"""The dashboard is valid, current, and asks for metrics that there are; all of them are shown."""

import json
import re
import subprocess
import sys

from tests.docs import metrics_page
from tests.house import sources

FOLDER = sources.ROOT / "deploy/grafana"
DASHBOARD = json.loads((FOLDER / "sealtape.json").read_text())
METRIC = re.compile(r"\bsealtape_[a-z_]+|\bprocess_[a-z_]+")
OF_PROCESSES = {"process_cpu_seconds_total", "process_resident_memory_bytes"}


def expressions():
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def test_it_is_what_the_script_makes():
    made = subprocess.run(
        [sys.executable, FOLDER / "dashboard.py"], capture_output=True, text=True, check=True
    )
    assert made.stdout == (FOLDER / "sealtape.json").read_text()


def test_every_metric_asked_for_is_there_and_each_is_shown():
    asked = {name for expression in expressions() for name in METRIC.findall(expression)}
    there = {name for each in metrics_page.measures() for name in metrics_page.series(each)}
    assert asked <= there | OF_PROCESSES
    shown = {name.removesuffix("_bucket") for name in asked}
    assert {each.name for each in metrics_page.measures()} <= shown


def test_labels_asked_for_are_the_metrics_own():
    labels = {name: set(each.labels) for each in metrics_page.measures()
              for name in metrics_page.series(each)}  # fmt: skip
    given = {"instance", "worker", "le", "room", "version"}
    for expression in expressions():
        names = METRIC.findall(expression)
        for grouping in re.findall(r"by \(([a-z, ]*)\)", expression):
            wanted = {label.strip() for label in grouping.split(",")}
            assert wanted <= given.union(*(labels.get(name, set()) for name in names)), expression


def test_panels_have_names_places_and_a_data_source():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 40
    places = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        assert panel["title"]
        places.add((at["x"], at["y"]))
        if panel["type"] != "row":
            assert panel["targets"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
            assert panel["datasource"]["uid"] == "${datasource}"
    assert len(places) == len(panels)
    names = {each["name"] for each in DASHBOARD["templating"]["list"]}
    assert names == {"datasource", "instance"}


def test_prometheus_understands_every_expression(promtool, tmp_path):
    rules = []
    for number, expression in enumerate(expressions()):
        shown = expression.replace("$__rate_interval", "5m").replace("$instance", ".*")
        rules.append({"record": f"panel:number_{number}", "expr": shown})
    groups = {"groups": [{"name": "panels", "rules": rules}]}
    (tmp_path / "rules.json").write_text(json.dumps(groups))  # JSON is YAML
    done = subprocess.run(
        [promtool, "check", "rules", "rules.json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout
