"""A spool is let go when all that it waits for is settled; test_worker_receipts.py has the rest."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from sealtape.capture.receipts.sources import FolderSource, LaneSource
from sealtape.schemas.tlog.receipts import Ended

ONE, TWO = (Ended(bytes([n]) * 16, 0, 5, bytes(32)) for n in (1, 2))


class Files:
    """The files of a lane, as far as a source asks them."""

    def __init__(self):
        self.settled = []
        self.deleted = []

    def settle(self, number):
        self.settled.append(number)

    def holding(self, numbers):
        return [f"file {number}" for number in numbers]

    def deletable(self):
        return [f"file {number}" for number in self.settled]

    def delete(self, files):
        self.deleted += files


class Sends:
    """A shipper that keeps what it was asked to send again."""

    def __init__(self):
        self.sent = []

    async def send_again(self, files, sessions):
        self.sent.append((list(files), list(sessions)))


@pytest.fixture
def executor():
    with ThreadPoolExecutor(1) as pool:
        yield pool


async def test_a_lane_lets_go_of_files_and_sends_those_of_a_session(executor):
    class Lane:
        files = Files()

    sends = Sends()
    source = LaneSource(Lane, sends, executor)
    source.add(ONE.session, 7)
    source.add(TWO.session, 8)
    await source.send_again([ONE.session, b"a stranger's"])
    assert sends.sent == [(["file 7"], [ONE.session, b"a stranger's"])]
    await source.settled(ONE)
    assert Lane.files.settled == [7]
    assert Lane.files.deleted == ["file 7"]
    await source.send_again([ONE.session])
    assert sends.sent[-1][0] == []


async def test_a_folder_goes_when_nothing_is_owed():
    class Folder:
        def files(self):
            return ["all of it"]

    sends = Sends()
    source = FolderSource(Folder(), [ONE, TWO], sends)
    waiting = asyncio.ensure_future(source.wait())
    await source.send_again([TWO.session])
    assert sends.sent == [(["all of it"], [TWO.session])]
    for ended in (ONE, ONE):
        await source.settled(ended)
        await asyncio.sleep(0)
        assert not waiting.done()
    await source.settled(TWO)
    await waiting
    await FolderSource(Folder(), [], sends).wait()
