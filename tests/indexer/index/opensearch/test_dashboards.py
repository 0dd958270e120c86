import importlib.util
import json
import re
from pathlib import Path

import pytest

from sealtape.indexer.index.base import Update
from sealtape.indexer.index.opensearch.dashboards import saved_objects
from sealtape.indexer.index.opensearch.layout import Layout
from tests.conformance.index import command, session

LAYOUT = Layout("sealtape")
DEPLOY = Path(__file__).parents[4] / "deploy" / "opensearch"
OBJECTS = saved_objects(LAYOUT)
SOURCE = "kibanaSavedObjectMeta"


def generated():
    spec = importlib.util.spec_from_file_location("generate", DEPLOY / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.files()


def test_the_files_are_those_of_the_adapter():
    """Otherwise: python deploy/opensearch/generate.py"""
    wanted = generated()
    there = {
        str(path.relative_to(DEPLOY)): path.read_text()
        for path in DEPLOY.rglob("*")
        if path.is_file() and path.suffix in (".json", ".ndjson", ".yml")
    }
    assert there == wanted


def of(kind):
    return [one for one in OBJECTS if one["type"] == kind]


def fields(family):
    """Fields of a family's mapping, and how they are kept."""

    def walk(properties, path):
        for name, field in properties.items():
            if "properties" in field:
                yield from walk(field["properties"], f"{path}{name}.")
            else:
                yield f"{path}{name}", field

    body = LAYOUT.component_templates()[family]["template"]["mappings"]
    return dict(walk(body["properties"], ""))


def family_of(one):
    by_id = {pattern["id"]: pattern["attributes"]["title"] for pattern in of("index-pattern")}
    (reference,) = [ref for ref in one["references"] if ref["type"] == "index-pattern"]
    return by_id[reference["id"]]


def test_ids_are_unique_and_references_lead_somewhere():
    known = {(one["type"], one["id"]) for one in OBJECTS}
    assert len(known) == len(OBJECTS)
    for one in OBJECTS:
        assert one["id"].startswith("sealtape-")
        for reference in one["references"]:
            assert (reference["type"], reference["id"]) in known
        names = [reference["name"] for reference in one["references"]]
        assert len(names) == len(set(names))


def test_there_are_five_boards_and_what_they_show():
    titles = {board["attributes"]["title"] for board in of("dashboard")}
    names = ("sessions", "commands", "errors", "who touched what", "gaps and incidents")
    assert titles == {f"Sealtape: {name} (not verified)" for name in names}
    assert all("sealtape verify" in board["attributes"]["description"] for board in of("dashboard"))
    shown = set()
    for board in of("dashboard"):
        panels = json.loads(board["attributes"]["panelsJSON"])
        references = {ref["name"]: (ref["type"], ref["id"]) for ref in board["references"]}
        taken = set()
        for panel in panels:
            shown.add(references[panel["panelRefName"]])
            grid = panel["gridData"]
            assert grid["i"] == panel["panelIndex"]
            assert grid["x"] + grid["w"] <= 48
            cells = {(grid["x"] + x, grid["y"]) for x in range(grid["w"])}
            assert not cells & taken
            taken |= cells
        json.loads(board["attributes"]["optionsJSON"])
        assert board["attributes"]["timeRestore"]
    assert shown == {(one["type"], one["id"]) for one in of("search") + of("visualization")}


def test_patterns_are_the_aliases():
    titles = {one["attributes"]["title"] for one in of("index-pattern")}
    assert titles == {LAYOUT.sessions, LAYOUT.commands, LAYOUT.quarantine}
    for one in of("index-pattern"):
        known = fields(one["attributes"]["title"])
        assert known[one["attributes"]["timeFieldName"]]["type"] == "date"


@pytest.mark.parametrize("one", of("search") + of("visualization"), ids=lambda one: one["id"])
def test_every_field_is_there(one):
    known = fields(family_of(one))
    source = json.loads(one["attributes"][SOURCE]["searchSourceJSON"])
    assert source["indexRefName"] in {ref["name"] for ref in one["references"]}
    text = re.sub(r'"[^"]*"', "", source["query"]["query"])
    for name in re.findall(r"([\w.@]+) :", text):
        assert known[name].get("index", True), name
    for name in one["attributes"].get("columns", []):
        assert name in known
    if one["type"] == "visualization":
        state = json.loads(one["attributes"]["visState"])
        assert len({agg["id"] for agg in state["aggs"]}) == len(state["aggs"])
        for agg in state["aggs"]:
            if name := agg["params"].get("field"):
                assert known[name].get("doc_values", True), name
                assert known[name]["type"] in ("keyword", "date", "ip", "long"), name


async def test_charts_can_be_asked_for(prepared, index):
    """Each split of a chart as OpenSearch is asked for it, on the real mapping."""
    owner = session(1, agent="bot", run="7", client="psql", ended_ns=2 * 10**9, close_reason="eof")
    failed = {"error": "42P01", "message": "no", "status": "error", "fingerprint": "5f2b"}
    await index.put(Update((owner,), (command(owner, 0, tables=("a", "b"), **failed),)))
    layout = prepared.layout
    for chart in saved_objects(layout):
        if chart["type"] != "visualization":
            continue
        (reference,) = chart["references"]
        family = reference["id"]
        for agg in json.loads(chart["attributes"]["visState"])["aggs"]:
            if agg["type"] == "terms":
                body = {"size": 0, "aggs": {"x": {"terms": {"field": agg["params"]["field"]}}}}
                answer = prepared.server.ask("POST", f"/{family}/_search", body)
                assert answer["aggregations"]["x"]["buckets"], agg["params"]["field"]
