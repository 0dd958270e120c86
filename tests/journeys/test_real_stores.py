"""The same deployment, its stores switched to real servers by their URLs alone."""

from tests.journeys.lab import Lab


async def test_recorded_sealed_found_replayed_and_verified(tmp_path, postgres_server, stores):
    async with Lab(tmp_path, postgres_server.port, stores=stores) as lab:
        await lab.dev()
        async with lab.asyncpg() as connection:
            for number in range(20):
                assert await connection.fetchval("select $1::int", number) == number
            rows = await connection.fetch(
                "select n, repeat('x', 1000) from generate_series(1, 20000) n"
            )
            assert len(rows) == 20000
            await lab.until(lambda: lab.commands("generate_series"), what="a live hit")
        (session,) = await lab.sealed(1)
        assert session.commands == 21
        await lab.verify("--all", "--deep")
        client = await lab.raw(session.id, "client")
        assert b"generate_series(1, 20000)" in client
        server = await lab.raw(session.id, "server")
        assert server.count(b"x" * 1000) == 20000
        await lab.front.stop()
        await lab.cli("index", "rebuild")
        (again,) = await lab.sessions("user:ada")
        assert again.commands == 21
