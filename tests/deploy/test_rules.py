"""The alert rules are valid, fire when they must, and ask for metrics that there are."""

import re
import subprocess

from tests.docs import metrics_page
from tests.house import sources

FOLDER = sources.ROOT / "deploy/prometheus"
RULES = (FOLDER / "sealtape.rules.yml").read_text()
TESTS = (FOLDER / "sealtape.rules.test.yml").read_text()
METRIC = re.compile(r"\bsealtape_(?:capture|ingest|indexer|verify|build)_[a-z_]+")
ALERTS = re.findall(r"- alert: (\w+)", RULES)


def test_promtool_takes_the_rules_and_the_configuration(promtool):
    for what, file in (("rules", "sealtape.rules.yml"), ("config", "prometheus.yml")):
        done = subprocess.run(
            [promtool, "check", what, file], cwd=FOLDER, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_must(promtool):
    done = subprocess.run(
        [promtool, "test", "rules", "sealtape.rules.test.yml"],
        cwd=FOLDER, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_is_wrong_is_found(promtool, tmp_path):
    (tmp_path / "sealtape.rules.yml").write_text(
        RULES.replace("> 0.5\n        for: 2m", "> 5\n        for: 2m")
    )
    (tmp_path / "sealtape.rules.test.yml").write_text(TESTS)
    done = subprocess.run(
        [promtool, "test", "rules", "sealtape.rules.test.yml"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "SealtapeSpoolFilling" in done.stdout + done.stderr


def test_every_metric_asked_for_is_there():
    there = {name for each in metrics_page.measures() for name in metrics_page.series(each)}
    for text in (RULES, TESTS):
        assert set(METRIC.findall(text)) <= there


def test_every_alert_is_tested_says_what_to_do_and_how_bad_it_is():
    assert len(set(ALERTS)) == len(ALERTS) > 25
    for block in RULES.split("- alert: ")[1:]:
        name = block.split("\n")[0]
        assert f"alertname: {name}\n" in TESTS or f'"{name}"' in TESTS, name
        assert re.search(r"labels: \{severity: (critical|warning)\}", block), name
        assert "summary:" in block, name
        assert len(block.partition("runbook: >-")[2].strip()) > 40, name


def test_what_must_wake_somebody_is_in_the_documentation():
    page = metrics_page.PAGE.read_text()
    for block in RULES.split("- alert: ")[1:]:
        if "severity: critical" in block:
            assert block.split("\n")[0] in page


def test_commands_in_runbooks_exist():
    from tests.docs.test_commands import problem

    commands = re.findall(r"`(sealtape [^`]+)`", " ".join(RULES.split()))
    assert len(commands) > 4
    assert not {line: problem(line) for line in commands if problem(line)}


def test_the_rooms_of_the_configuration_are_those_of_the_rules():
    jobs = set(re.findall(r"job_name: (\S+)", (FOLDER / "prometheus.yml").read_text()))
    assert set(re.findall(r'job="([^"]+)"', RULES)) <= jobs
