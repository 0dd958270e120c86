import asyncio
import signal
import socket

import psutil
import pytest

from sealtape.capture.metrics import Measure, Readiness, Sheet, link
from sealtape.capture.metrics.link import NodeVitals, Question, Reply
from sealtape.capture.metrics.vitals import written
from tests.capture.metrics.http import get, samples
from tests.capture.node_lab import NodeLab, node
from tests.capture.postgres.gateway_world import psql
from tests.servers.postgres import shared_server

THINGS = Measure("sealtape_things_total", "counter", "Things.")


class Room:
    def __init__(self, number):
        self.number = number
        self.ready = True
        self.slow_s = 0.0

    async def families(self):
        await asyncio.sleep(self.slow_s)
        sheet = Sheet([THINGS], worker=str(self.number))
        sheet.put(THINGS, 10 + self.number)
        return sheet.families()

    async def readiness(self):
        return Readiness(ready=self.ready, checks={"spool": "ok" if self.ready else "failing"})


class Crew:
    """Two workers of a node, without the processes."""

    def __init__(self):
        self.vitals = NodeVitals(node="n1", workers=2)
        self.rooms, self.replies = [], []
        for number in range(2):
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.setblocking(False)
            self.rooms.append(Room(number))
            self.replies.append(Reply(self.rooms[-1], theirs))
            self.replies[-1].open()
            self.vitals.attach(number, Question(ours))

    async def samples(self):
        return samples(written(await self.vitals.families()).decode())

    async def close(self):
        for number, reply in enumerate(self.replies):
            await reply.close()
            self.vitals.attach(number, None)


@pytest.fixture
async def crew():
    crew = Crew()
    yield crew
    await crew.close()


def ups(found):
    return [found["sealtape_capture_worker_up", ("worker", str(n))] for n in range(2)]


async def test_one_scrape_holds_all_workers(crew):
    for _ in range(2):
        told = await crew.samples()
        assert told["sealtape_things_total", ("worker", "0")] == 10
        assert told["sealtape_things_total", ("worker", "1")] == 11
        assert told["sealtape_capture_worker_restarts_total", ("worker", "1")] == 0
        assert told["process_open_fds", ("worker", "supervisor")] > 0
    text = written(await crew.vitals.families()).decode()
    assert text.count("# TYPE sealtape_things_total counter") == 1


async def test_a_dead_worker_is_down_and_its_successor_up_again(crew):
    await crew.replies[1].close()
    crew.vitals.restarts[1] += 1
    told = await crew.samples()
    assert told["sealtape_capture_worker_up", ("worker", "1")] == 0
    assert told["sealtape_capture_worker_restarts_total", ("worker", "1")] == 1
    assert ("sealtape_things_total", ("worker", "1")) not in told
    assert (await crew.vitals.readiness()) == Readiness(
        ready=True, checks={"worker 0: spool": "ok", "worker 1": "down"}
    )
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    crew.replies[1] = Reply(crew.rooms[1], theirs)
    crew.replies[1].open()
    crew.vitals.attach(1, Question(ours))
    assert (await crew.samples())["sealtape_things_total", ("worker", "1")] == 11


async def test_a_node_is_ready_when_its_workers_are(crew):
    assert (await crew.vitals.readiness()).ready
    crew.rooms[0].ready = False
    readiness = await crew.vitals.readiness()
    assert not readiness.ready
    assert readiness.checks == {"worker 0: spool": "failing", "worker 1: spool": "ok"}
    for reply in crew.replies:
        await reply.close()
    assert not (await crew.vitals.readiness()).ready


async def test_a_late_answer_is_not_taken_for_the_next(crew, monkeypatch):
    monkeypatch.setattr(link, "ASK_TIMEOUT_S", 0.15)
    for slow_s in (0.2, 0.3):
        crew.rooms[0].slow_s = slow_s
        told = await crew.samples()
        assert told["sealtape_capture_worker_up", ("worker", "0")] == 0
        assert told["sealtape_things_total", ("worker", "1")] == 11
    crew.rooms[0].slow_s = 0
    await asyncio.sleep(0.5)
    monkeypatch.setattr(link, "ASK_TIMEOUT_S", 10)
    crew.rooms[0].number = 5  # only an answer given from now on says so
    assert (await crew.samples())["sealtape_things_total", ("worker", "5")] == 15


async def test_half_an_answer_is_waited_for_the_next_time(monkeypatch):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    question = Question(ours)
    monkeypatch.setattr(link, "ASK_TIMEOUT_S", 0.2)
    body = b'{"metrics": "", "ready": true, "checks": {}}'
    theirs.sendall((1).to_bytes(4, "big") + len(body).to_bytes(4, "big") + body[:5])
    assert await question.ask() is None
    monkeypatch.setattr(link, "ASK_TIMEOUT_S", 10)
    theirs.sendall(body[5:] + (2).to_bytes(4, "big") + len(body).to_bytes(4, "big") + body)
    assert (await question.ask()).readiness.ready
    theirs.close()
    assert await question.ask() is None
    question.close()


async def test_one_endpoint_for_a_node_of_several_workers(tmp_path):
    lab = NodeLab(tmp_path, shared_server(), capture='workers = 2\nmetrics = "127.0.0.1:0"')
    async with node(lab) as (process, ready):
        address = ready["listeners"]["metrics"]
        for _ in range(3):
            code, _, err = await psql(lab.dsn(ready["listeners"]["postgres"]), "-c", "select 1")
            assert code == 0, err
        assert (await get(address, "/readyz")).status == 200
        told = (await get(address, "/metrics")).samples()
        assert ups(told) == [1, 1]
        opened = [v for (n, *_), v in told.items() if n == "sealtape_capture_sessions_opened_total"]
        assert sum(opened) == 3
        worker = psutil.Process(process.pid).children()[0]
        worker.send_signal(signal.SIGSTOP)
        assert sorted(ups((await get(address, "/metrics")).samples())) == [0, 1]
        worker.send_signal(signal.SIGCONT)
        worker.kill()
        async with asyncio.timeout(60):
            while True:
                told = (await get(address, "/metrics")).samples()
                restarts = "sealtape_capture_worker_restarts_total"
                again = sum(told[restarts, ("worker", str(n))] for n in range(2))
                if again == 1 and ups(told) == [1, 1]:
                    break
                await asyncio.sleep(0.1)
