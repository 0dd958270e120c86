"""The manifests: they are what the code and docs/operations.md say. No cluster runs them here."""

import re
from pathlib import Path

import pytest
import yaml

from sealtape.indexer.cli.main import build_parser
from sealtape.schemas.settings.values import name as checked_name

FOLDER = Path(__file__).resolve().parents[2] / "deploy/kubernetes"
ROOMS = {
    "capture": "StatefulSet",
    "ingest": "Deployment",
    "indexer": "Deployment",
    "verify": "StatefulSet",
}


def documents(room):
    return [d for d in yaml.safe_load_all((FOLDER / f"{room}.yaml").read_text()) if d]


def workload(room):
    (found,) = [each for each in documents(room) if each["kind"] == ROOMS[room]]
    return found["metadata"]["name"], found["spec"], found["spec"]["template"]["spec"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_started_checked_and_ended_as_it_should_be(room):
    name, spec, pod = workload(room)
    (container,) = pod["containers"]
    build_parser().parse_args(container["args"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": ports["metrics"]}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": ports["metrics"]}
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["terminationGracePeriodSeconds"] >= 60
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels == {"app": name}
    for each in documents(room):
        if each["kind"] == "Service":
            assert each["spec"]["selector"] == labels
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    claims = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ())}
    assert mounted == {volume["name"] for volume in pod["volumes"]} | claims


@pytest.mark.parametrize("room", ["ingest", "indexer"])
def test_each_process_has_a_name_of_its_own(room):
    _, _, pod = workload(room)
    (variable,) = pod["containers"][0]["env"]
    assert variable["name"] == "SEALTAPE_WORKER"
    assert variable["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"


def test_each_node_has_a_name_keys_and_a_volume_of_its_own():
    name, spec, pod = workload("capture")
    (container,) = pod["containers"]
    variables = {each["name"]: each for each in container["env"]}
    assert list(variables) == ["POD", "SEALTAPE_NODE"]  # POD first: the other one refers to it
    assert variables["SEALTAPE_NODE"]["value"] == "$(POD)"
    (keys,) = [each for each in container["volumeMounts"] if each["name"] == "node-keys"]
    assert keys["subPathExpr"] == "$(POD)"
    (volume,) = [each for each in pod["volumes"] if each["name"] == "node-keys"]
    pods = {f"{name}-{ordinal}" for ordinal in range(spec["replicas"])}
    assert {checked_name(pod) for pod in pods} == pods
    paths = {item["path"] for item in volume["secret"]["items"]}
    assert paths == {f"{pod}/{file}.key" for pod in pods for file in ("node", "spool")}
    assert len({item["key"] for item in volume["secret"]["items"]}) == len(paths)
    assert spec["volumeClaimTemplates"][0]["metadata"]["name"] == "data"
    services = [
        each["metadata"]["name"] for each in documents("capture") if each["kind"] == "Service"
    ]
    assert spec["serviceName"] in services


def test_the_settings_named_in_the_comments_exist():
    from sealtape.schemas.settings import reference

    known = {(setting.table, setting.key) for setting in reference()}
    named = set()
    for room in ROOMS:
        for line in (FOLDER / f"{room}.yaml").read_text().splitlines():
            if found := re.search(r"\[([a-z.]+)\] +([a-z].*)", line):
                named |= {(found[1], key) for key in re.findall(r"(?:^|, )([a-z_]+) = ", found[2])}
    assert ("keys", "spool") in named
    assert ("capture.postgres", "peers") in named
    assert named <= known
