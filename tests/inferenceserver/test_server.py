"""What our inference server does by itself: its queue, versions, pages, and how it stops."""

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from mqinfer.adapters.triton import TritonClient
from mqinfer.errors import ModelUnavailable
from mqinfer.stack import InferenceServer, StackConfigurationError, probe
from mqinfer.stack.inferenceserver import wire
from mqinfer.stack.inferenceserver.__main__ import parse, serve
from mqinfer.stack.inferenceserver.tensors import Tensor, reshaped, split
from mqinfer.stack.ports import free_port
from mqinfer.testing import until
from tests.inferenceserver.test_deaths import processes
from tests.support.models import save_rounds, save_table


@contextlib.contextmanager
def held(server: InferenceServer) -> Iterator[None]:
    """Let the model take as long as the block."""
    [process] = processes(server, "slow/1")
    process.suspend()
    try:
        yield
    finally:
        process.resume()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "repository" / "models"
    root.mkdir(parents=True)
    return root


@pytest.fixture
async def server(tmp_path: Path, root: Path) -> AsyncIterator[InferenceServer]:
    server = InferenceServer(
        tmp_path / "data",
        log=tmp_path / "log",
        models=root,
        metrics_port=free_port(),
        exit_timeout=30,
    )
    yield server
    await server.stop()


@pytest.fixture
async def client(server: InferenceServer) -> AsyncIterator[TritonClient]:
    client = TritonClient(server.url)
    yield client
    await client.close()


async def begin(server: InferenceServer) -> None:
    await server.start()
    await server.wait_ready()


async def rounds(client: TritonClient, number: int, timeout: float | None = 100) -> list[Any]:
    inputs = {"rounds": np.array([[number]])}
    reply = await client.infer("slow", None, inputs, timeout=timeout)
    return list(reply.outputs["out"].tolist())


async def counted(server: InferenceServer) -> dict[tuple[str, str], float]:
    """What Prometheus reads: the values by name and, of failures, their reason."""
    status, body = await probe.http(server.metrics_port or 0, "/metrics")
    assert status == 200
    return {
        (one.name.removesuffix("_total"), one.labels.get("reason", "")): one.value
        for family in text_string_to_metric_families(body.decode())
        for one in family.samples
        if one.labels["model"] == "slow"
    }


def waiting(server: InferenceServer, number: int) -> Callable[[], Awaitable[bool]]:
    """Whether so many requests wait for the model; one more is then at work."""

    async def asked() -> bool:
        return (await counted(server))["nv_inference_pending_request_count", ""] >= number

    return asked


async def test_what_nobody_waits_for_is_not_run(
    server: InferenceServer, client: TritonClient, root: Path
) -> None:
    save_rounds(root, "slow", batch=1)
    await begin(server)
    with held(server):
        stay = [asyncio.create_task(rounds(client, number)) for number in (6, 8)]
        await until(waiting(server, 1))
        left = [asyncio.create_task(rounds(client, 7)) for _ in range(3)]
        await until(waiting(server, 4))
        for one in left:
            one.cancel()
        await asyncio.gather(*left, return_exceptions=True)

        async def cancelled() -> bool:
            return (await counted(server))["nv_inference_request_failure", "CANCELED"] == 3

        await until(cancelled)
    assert await asyncio.gather(*stay) == [[[6]], [[8]]]
    values = await counted(server)
    assert values["nv_inference_exec_count", ""] == 2
    assert values["nv_inference_count", ""] == 2
    assert values["nv_inference_request_success", ""] == 2
    assert values["nv_inference_request_failure", "CANCELED"] == 3
    assert values["nv_inference_request_failure", "BACKEND"] == 0
    assert values["nv_inference_compute_infer_duration_us", ""] > 0
    assert values["nv_inference_pending_request_count", ""] == 0


async def test_what_waits_together_runs_together(
    server: InferenceServer, client: TritonClient, root: Path
) -> None:
    save_rounds(root, "slow", batch=8, more="dynamic_batching { }")
    await begin(server)
    with held(server):
        # Requests that are full already, which no other joins: one at work, one that waits.
        full = {"rounds": np.array([[number] for number in range(8)])}
        large = [
            asyncio.create_task(client.infer("slow", None, full, timeout=100)) for _ in range(2)
        ]
        await until(waiting(server, 1))
        calls = [asyncio.create_task(rounds(client, number)) for number in range(13)]
        await until(waiting(server, 14))
    for reply in await asyncio.gather(*large):
        assert reply.outputs["out"].tolist() == full["rounds"].tolist()
    assert await asyncio.gather(*calls) == [[[number]] for number in range(13)]
    values = await counted(server)
    assert values["nv_inference_count", ""] == 29
    assert values["nv_inference_exec_count", ""] == 4  # two full, eight, five


async def test_stopping_finishes_what_it_has_accepted(
    server: InferenceServer, client: TritonClient, root: Path
) -> None:
    save_rounds(root, "slow", batch=1)
    await begin(server)
    with held(server):
        calls = [asyncio.create_task(rounds(client, number)) for number in range(2)]
        await until(waiting(server, 1))
        assert server.pid is not None
        os.kill(server.pid, signal.SIGTERM)
        await until(lambda: "stopping" in server.log.read_text())
    assert await asyncio.gather(*calls) == [[[0]], [[1]]]
    assert await server.wait() == 0


POLICIES = {
    "": [12],
    "version_policy: { latest { num_versions: 2 } }": [2, 12],
    "version_policy: { specific { versions: [ 1, 12, 99 ] } }": [1, 12],
    "version_policy: { all { } }": [1, 2, 12],
}


async def test_version_policies_and_what_changes(
    server: InferenceServer, client: TritonClient, root: Path
) -> None:
    for number, policy in enumerate(POLICIES):
        for version in ("1", "2", "12"):
            save_table(root, version, float(version), f"table{number}")
        config = root / f"table{number}" / "config.pbtxt"
        config.write_text(config.read_text().replace("version_policy: { all {} }", policy))
        (root / f"table{number}" / "notes").mkdir()
        (root / f"table{number}" / "007").mkdir()
    await begin(server)

    async def served(model: str) -> list[int]:
        found = await client.versions()
        return [int(one.version) for one in found if one.model == model and one.ready]

    for number, versions in enumerate(POLICIES.values()):
        assert await served(f"table{number}") == versions
    # A new version takes the place of the latest.
    save_table(root, "13", 13.0, "table0")

    async def replaced() -> bool:
        return await served("table0") == [13]

    await until(replaced)
    reply = await client.infer("table0", None, {"index": np.array([[2]])}, timeout=60)
    assert (reply.version, reply.outputs["value"].tolist()) == ("13", [[26.0]])
    with pytest.raises(ModelUnavailable, match="version 12"):
        await client.infer("table0", "12", {"index": np.array([[2]])}, timeout=60)


async def test_it_says_that_it_is_ready_once_grpc_listens(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, may = asyncio.Event(), asyncio.Event()
    made = grpc.aio.server

    def slow(**options: Any) -> grpc.aio.Server:
        server = made(**options)
        start = server.start

        async def held() -> None:
            starting.set()
            await may.wait()
            await start()

        server.start = held
        return server

    monkeypatch.setattr(grpc.aio, "server", slow)
    grpc_port, http_port = free_port(), free_port()
    arguments = f"--models={root} --grpc-port={grpc_port} --http-port={http_port}"
    serving = asyncio.create_task(serve(parse(arguments.split())))
    client = TritonClient(f"127.0.0.1:{grpc_port}")

    async def ready() -> bool:
        with contextlib.suppress(OSError, TimeoutError):
            return (await probe.http(http_port, "/v2/health/ready"))[0] == 200
        return False

    try:
        await asyncio.wait_for(starting.wait(), 60)
        with pytest.raises(OSError):
            await probe.http(http_port, "/v2/health/ready")
        may.set()
        await until(ready, "the server", 60)
        assert await client.versions() == []
    finally:
        await client.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_a_page_of_somebody_else_is_refused(server: InferenceServer, root: Path) -> None:
    save_table(root, "1", 1.0)
    await begin(server)
    assert server.metrics_port
    for port, path, method in (
        (server.http_port, "/v2/repository/index", "POST"),
        (server.http_port, "/v2/repository/models/table/unload", "POST"),
        (server.metrics_port, "/metrics", "GET"),
    ):
        for headers in ({"Origin": "http://example.com"}, {"Host": "example.com"}):
            status, _ = await probe.http(port, path, method=method, headers=headers)
            assert status == 403
    status, _ = await probe.http(server.http_port, "/v2/models/table/infer", method="POST")
    assert status == 404
    assert [one.state for one in await server.model_states()] == ["READY"]


async def test_a_server_without_control_says_so(tmp_path: Path, root: Path) -> None:
    save_table(root, "1", 1.0)
    server = InferenceServer(
        tmp_path / "data", log=tmp_path / "log", models=root, model_control="none"
    )
    await begin(server)
    try:
        async with grpc.aio.insecure_channel(server.url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            request = pb.RepositoryModelUnloadRequest(model_name="table")
            with pytest.raises(grpc.aio.AioRpcError, match="load / unload is not allowed"):
                await stub.RepositoryModelUnload(request)
    finally:
        await server.stop()


def test_without_onnxruntime_it_says_what_to_do(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = InferenceServer(tmp_path, log=tmp_path / "log", models=root / "nowhere")
    with pytest.raises(StackConfigurationError, match=r"nowhere is not a folder"):
        server.check()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StackConfigurationError, match="pip install onnxruntime"):
        server.check()


# --- bytes --------------------------------------------------------------------------------------


@st.composite
def requests(draw: st.DrawFn) -> Any:
    name, label = draw(st.text(max_size=5)), draw(st.text(max_size=5))
    request = pb.ModelInferRequest(model_name=name, id=label)
    for name in draw(st.lists(st.text(max_size=4), max_size=3)):
        request.inputs.add(name=name, datatype="FP32", shape=draw(st.lists(st.integers(-1, 9))))
    for key in draw(st.lists(st.text(max_size=4), max_size=2)):
        request.parameters[key].double_param = draw(st.floats(allow_nan=False))
    request.raw_input_contents.extend(draw(st.lists(st.binary(max_size=300), max_size=3)))
    return request


@given(request=requests())
def test_requests_are_read_alike_whether_large_or_small(request: Any) -> None:
    data = request.SerializeToString()
    small = wire.read(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "_LARGE", 0)
        large = wire.read(data)
        for cut in range(len(data)):
            try:
                pb.ModelInferRequest.FromString(data[:cut])
            except Exception as error:  # noqa: BLE001 - whatever protobuf raises
                with pytest.raises(type(error)):
                    wire.read(data[:cut])
    assert [bytes(raw) for raw in large.raws] == list(small.raws)
    small.message.ClearField("raw_input_contents")
    assert large.message == small.message


@given(
    texts=st.lists(st.lists(st.binary(max_size=9), min_size=2, max_size=2), min_size=1),
    data=st.data(),
)
def test_outputs_of_a_batch_come_apart(texts: list[list[bytes]], data: st.DataObject) -> None:
    def packed(rows: list[list[bytes]]) -> bytes:
        return b"".join(len(one).to_bytes(4, "little") + one for row in rows for one in row)

    cuts = sorted(data.draw(st.sets(st.integers(1, len(texts)))) | {0, len(texts)})
    rows = [end - begin for begin, end in itertools.pairwise(cuts)]
    whole = Tensor("x", "BYTES", (len(texts), 2), packed(texts))
    parts = split(whole, rows)
    assert [part.raw for part in parts] == [packed(texts[a:b]) for a, b in itertools.pairwise(cuts)]
    numbers = np.arange(len(texts) * 3, dtype=np.int16).reshape(-1, 3)
    parts = split(Tensor("x", "INT16", numbers.shape, numbers.tobytes()), rows)
    for part, (begin, end) in zip(parts, itertools.pairwise(cuts), strict=True):
        assert part.shape == (end - begin, 3)
        assert part.raw == numbers[begin:end].tobytes()


@pytest.mark.parametrize(
    ("shape", "dims", "target", "result"),
    [
        ((1,), (1,), (), ()),
        ((6,), (6,), (2, 3), (2, 3)),
        ((6,), (-1,), (2, -1), (2, 3)),
        ((4, 5, 6), (-1, 5, -1), (-1, -1, 5), (4, 6, 5)),
    ],
)
def test_shapes_that_a_model_sees(
    shape: tuple[int, ...],
    dims: tuple[int, ...],
    target: tuple[int, ...],
    result: tuple[int, ...],
) -> None:
    assert reshaped(shape, dims, target) == result
