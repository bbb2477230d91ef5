"""The calling end: reconnecting, retrying, TLS."""

import asyncio
import datetime
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rpckit.channel import ChannelOptions, ChannelTls, open_channel
from rpckit.interceptors import Drain, call_chain
from rpckit.server import ServerTls, bind, new_server
from rpckit.status import error_from_rpc
from soma_contract.errors import ComponentUnavailableError, MemoryNotFoundError
from tests.servicers.rpckit.kit import SERVICE, A, Keys, stand, unary

RETRY = {
    "methodConfig": [
        {
            "name": [{"service": SERVICE}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


async def fine(request: Any, context: Any) -> bytes:
    return b"ok"


async def listening(address: str, tls: ServerTls | None = None) -> tuple[grpc.aio.Server, int]:
    server = new_server(call_chain(Keys(), drain=Drain()))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Get": unary(fine)}),))
    port = bind(server, address, tls)
    await server.start()
    return server, port


async def test_a_client_is_back_within_a_second_of_its_server() -> None:
    server, port = await listening("127.0.0.1:0")
    channel: Any = open_channel(f"127.0.0.1:{port}", options=ChannelOptions(own_connection=True))
    async with channel:
        call = channel.unary_unary(f"/{SERVICE}/Get")
        assert await call(b"", metadata=A) == b"ok"
        await server.stop(None)
        ends = time.monotonic() + 3
        while time.monotonic() < ends:  # the outage, long enough for grpc's own backoff to grow
            with pytest.raises(grpc.aio.AioRpcError):
                await call(b"", metadata=A, timeout=1)
            await asyncio.sleep(0.05)
        server, _ = await listening(f"127.0.0.1:{port}")
        back = time.monotonic()
        assert await call(b"", metadata=A, wait_for_ready=True, timeout=10) == b"ok"
        took_s = time.monotonic() - back
    await server.stop(None)
    assert took_s < 1.5


async def test_a_retry_policy_is_honoured_and_waits_as_long_as_the_server_says() -> None:
    times: list[float] = []

    async def third_time(request: Any, context: Any) -> bytes:
        times.append(time.monotonic())
        if len(times) < 3:
            raise ComponentUnavailableError(component="postgres", retry_after_s=0.3)
        return b"ok"

    async with stand({"Get": unary(third_time)}) as on:
        options = ChannelOptions(own_connection=True, service_config=RETRY)
        channel: Any = open_channel(f"127.0.0.1:{on.port}", options=options)
        async with channel:
            assert await channel.unary_unary(f"/{SERVICE}/Get")(b"", metadata=A, timeout=10) == b"ok"
    waits = [after - before for before, after in pairwise(times)]
    assert len(waits) == 2
    assert all(wait >= 0.29 for wait in waits)


async def test_what_cannot_get_better_is_not_tried_again() -> None:
    calls = 0

    async def missing(request: Any, context: Any) -> bytes:
        nonlocal calls
        calls += 1
        raise MemoryNotFoundError(memory_id="m")

    async with stand({"Get": unary(missing)}) as on:
        channel: Any = open_channel(f"127.0.0.1:{on.port}", options=ChannelOptions(service_config=RETRY))
        async with channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(f"/{SERVICE}/Get")(b"", metadata=A)
    assert type(error_from_rpc(caught.value)) is MemoryNotFoundError
    assert calls == 1


def certificate(directory: Path, serial: int) -> ServerTls:
    """A certificate for ``soma.test``, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "soma.test")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("soma.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = ServerTls(directory / "tls.crt", directory / "tls.key")
    files.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    files.private_key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


async def test_a_renewed_certificate_is_served_without_a_restart(tmp_path: Path) -> None:
    files = certificate(tmp_path, serial=1)
    server, port = await listening("127.0.0.1:0", files)

    async def call() -> bytes:
        tls = ChannelTls(root_ca=files.certificate, server_name="soma.test")
        channel: Any = open_channel(f"127.0.0.1:{port}", tls=tls, options=ChannelOptions(own_connection=True))
        async with channel:
            answer: bytes = await channel.unary_unary(f"/{SERVICE}/Get")(b"", metadata=A, timeout=5)
            return answer

    assert await call() == b"ok"
    certificate(tmp_path, serial=2)
    assert await call() == b"ok"  # trusts only the new one
    await server.stop(None)


async def test_a_certificate_for_another_name_is_not_trusted(tmp_path: Path) -> None:
    files = certificate(tmp_path, serial=1)
    server, port = await listening("127.0.0.1:0", files)
    channel: Any = open_channel(f"127.0.0.1:{port}", tls=ChannelTls(root_ca=files.certificate))
    async with channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{SERVICE}/Get")(b"", metadata=A, timeout=5)
    await server.stop(None)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
