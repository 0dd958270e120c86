import json

from sealtape import __version__
from sealtape.capture.metrics import Readiness
from sealtape.capture.metrics.vitals import build, process, written
from tests.capture.metrics.http import samples


def test_what_runs_here():
    (found,) = samples(written(build("ingest", "n1", worker="2")).decode()).items()
    labels = {"version": __version__, "room": "ingest", "node": "n1", "worker": "2"}
    assert found == (("sealtape_build_info", *sorted(labels.items())), 1)


def test_what_the_process_takes():
    found = samples(written(process(worker="2")).decode())
    assert found["process_resident_memory_bytes", ("worker", "2")] > 1 << 20
    assert found["process_cpu_seconds_total", ("worker", "2")] > 0
    assert found["process_open_fds", ("worker", "2")] > 0


def test_readiness_is_json():
    assert json.loads(Readiness(ready=True).to_json()) == {"ready": True, "checks": {}}
    body = Readiness(ready=False, checks={"bus": "failing"}).to_json()
    assert json.loads(body) == {"ready": False, "checks": {"bus": "failing"}}
