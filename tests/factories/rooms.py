"""A room that serves on the running loop, and what its endpoint says."""

import asyncio
from contextlib import asynccontextmanager, suppress

from tests.capture.metrics.http import get


@asynccontextmanager
async def room(serve, settings):
    """Serve by the settings until the block ends; `ask` in it waits for an answer that fits."""
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(settings, stop))

    async def ask(address, path, fits):
        async with asyncio.timeout(30):
            while True:
                assert not serving.done()
                await asyncio.sleep(0.1)
                with suppress(OSError):
                    answer = await get(address, path)
                    if fits(answer):
                        return answer

    try:
        yield ask
    finally:
        stop.set()
        await asyncio.wait_for(serving, 30)
