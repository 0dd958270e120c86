import asyncio
import socket

import pytest

from sealtape.capture.checks.listener import check_listener, check_metrics
from sealtape.capture.metrics import Endpoint
from sealtape.capture.node import start_capture
from tests.capture.checks.found import levels, one
from tests.capture.metrics.test_endpoint import Room
from tests.capture.node_lab import NodeLab
from tests.servers.postgres import shared_server


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def listening(deployment, address):
    return deployment.settings(('listen = "127.0.0.1:0"', f'listen = "{address}"'))


async def test_an_address_that_is_free(deployment):
    one(await check_listener(listening(deployment, f"127.0.0.1:{free_port()}")), "ok", "free")
    one(await check_listener(deployment.settings()), "ok", "each start")


async def test_production_needs_a_port_that_stays(production):
    settings = production.settings(("0.0.0.0:6432", "0.0.0.0:0"))
    one(await check_listener(settings), "warning", "port")


async def test_an_address_of_somebody_else(deployment):
    async def silent(reader, writer):
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    one(await check_listener(listening(deployment, address)), "error", "Address already in use")
    one(await check_metrics(address, "ingest"), "error", "[ingest]")
    server.close()


async def test_an_address_that_is_not_of_this_host(deployment):
    one(await check_listener(listening(deployment, "192.0.2.7:6432")), "error", "192.0.2.7")
    one(await check_listener(listening(deployment, "no-such-host.invalid:1")), "error", "invalid")


async def test_a_running_node_is_known_by_its_certificate(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "scram-secret")
    lab = NodeLab(tmp_path, shared_server())
    port = free_port()
    lab.path.write_text(lab.path.read_text().replace('"127.0.0.1:0"', f'"127.0.0.1:{port}"'))
    running = await start_capture(lab.settings)
    try:
        one(await check_listener(lab.settings), "ok", "our certificate")
        from tests.servers.tls import write_certificate

        write_certificate(tmp_path / "keys")  # the file was replaced, the node not restarted
        one(await check_listener(lab.settings), "error", "capture.postgres.listen")
        (tmp_path / "keys/tls.crt").unlink()
        one(await check_listener(lab.settings), "error", "capture.postgres.listen")
    finally:
        await running.stop()


async def test_metrics():
    one(await check_metrics("", "capture"), "warning", "[capture]")
    one(await check_metrics("", "capture", "dev"), "ok", "lab")
    address = f"127.0.0.1:{free_port()}"
    one(await check_metrics(address, "capture"), "ok", "free")
    endpoint = Endpoint(Room())
    await endpoint.open(address)
    assert levels(await check_metrics(address, "capture")) == {"capture: metrics": "ok"}
    one(await check_metrics(address, "capture"), "ok", "answers")
    await endpoint.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
async def test_an_address_for_all_interfaces(host):
    endpoint = Endpoint(Room())
    try:
        await endpoint.open(f"{host}:0")
    except Exception:
        pytest.skip("no IPv6 here")
    one(await check_metrics(endpoint.address, "ingest"), "ok", "answers")
    await endpoint.close()
