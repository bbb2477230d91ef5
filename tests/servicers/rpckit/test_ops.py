"""The operator's HTTP port."""

import asyncio
import contextlib

import httpx
import pytest

from rpckit.ops import OpsPort
from rpckit.telemetry.metrics import PrometheusMetrics


async def test_live_ready_and_metrics_are_served() -> None:
    metrics, ready = PrometheusMetrics(), [False]
    metrics.counter("things_total", "Things.", ("kind",)).labels("good").inc(3)
    async with (
        OpsPort("127.0.0.1", 0, is_ready=lambda: ready[0], metrics=metrics.exposition) as ops,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{ops.port}") as client,
    ):
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        ready[0] = True
        assert (await client.get("/readyz?verbose=1")).text == "ready\n"
        page = await client.get("/metrics")
        assert 'things_total{kind="good"} 3.0' in page.text
        assert page.headers["content-type"].startswith("text/plain")
        head = await client.head("/metrics")
        assert (head.content, int(head.headers["content-length"])) == (b"", len(page.content))
        assert (await client.get("/")).status_code == 404
        assert (await client.post("/livez")).status_code == 405


async def test_without_metrics_their_page_is_not_found() -> None:
    async with (
        OpsPort("127.0.0.1", 0, is_ready=lambda: True) as ops,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{ops.port}") as client,
    ):
        assert (await client.get("/metrics")).status_code == 404


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\r\n\r\n", b"GET " + b"x" * 100_000, b"", b"GET /livez\r\n\r\n"])
async def test_what_is_no_http_is_hung_up_on_and_the_port_lives_on(sent: bytes) -> None:
    async with OpsPort("127.0.0.1", 0, is_ready=lambda: True) as ops, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", ops.port)
        writer.write(sent)
        writer.write_eof()
        with contextlib.suppress(ConnectionResetError):  # hung up before it had read everything
            assert (await reader.read()).partition(b"\r\n")[0] in {b"", b"HTTP/1.1 400 Bad Request"}
        writer.close()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ops.port}") as client:
            assert (await client.get("/livez")).text == "alive\n"
