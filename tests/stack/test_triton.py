"""The embedded Triton: the ONNX Runtime backend and the model repository."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import pytest_asyncio
from tritonclient.grpc.aio import InferenceServerClient, InferInput, InferResult
from tritonclient.utils import InferenceServerException

from mqinfer.stack import StackConfigurationError, TritonServer
from tests.support.models import save_scale

pytestmark = pytest.mark.triton

MORE = """
dynamic_batching { max_queue_delay_microseconds: 200000 }
parameters { key: "intra_op_thread_count" value: { string_value: "2" } }
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    save_scale(root, "1", 2.0, MORE)
    save_scale(root, "2", 3.0, MORE)
    (root / "broken" / "1").mkdir(parents=True)
    (root / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    shutil.copy(root / "scale" / "config.pbtxt", root / "broken" / "config.pbtxt")
    return root


@pytest_asyncio.fixture
async def client(triton: TritonServer) -> AsyncIterator[InferenceServerClient]:
    async with InferenceServerClient(triton.url) as client:
        yield client


async def infer(
    client: InferenceServerClient, rows: list[list[float]], version: str = ""
) -> InferResult:
    array = np.array(rows, np.float32)
    tensor = InferInput("x", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return await client.infer("scale", [tensor], model_version=version, client_timeout=60)


async def test_two_versions_side_by_side(client: InferenceServerClient) -> None:
    for asked, answered, factor in (("1", "1", 2.0), ("2", "2", 3.0), ("", "2", 3.0)):
        result = await infer(client, [[1.0, 2.0]], asked)
        assert result.as_numpy("y").tolist() == [[factor, 2 * factor]]
        assert result.get_response().model_version == answered


async def test_requests_are_gathered_and_each_gets_its_own(
    client: InferenceServerClient,
) -> None:
    sizes = [1, 2, 3, 1, 1, 2, 1, 1] * 2
    largest = 0
    # Whether any of them wait together is up to the machine: ask until some did.
    for _ in range(100):
        results = await asyncio.gather(
            *(infer(client, [[float(n), 0.5]] * size, "1") for n, size in enumerate(sizes))
        )
        for number, (size, result) in enumerate(zip(sizes, results, strict=True)):
            assert result.as_numpy("y").tolist() == [[2.0 * number, 1.0]] * size
        largest = max(int(result.as_numpy("rows").max()) for result in results)
        if largest > max(sizes):
            break
    assert largest > max(sizes), "requests that waited together ran one by one"


async def test_a_bad_request_does_not_fail_its_neighbours(
    client: InferenceServerClient,
) -> None:
    # Three wide passes Triton's own check (dims: -1) and fails in the model.
    good = [infer(client, [[float(number), 1.0]], "1") for number in range(6)]
    bad = [infer(client, [[1.0, 2.0, 3.0]], "1") for _ in range(2)]
    calls = list(itertools.chain.from_iterable(itertools.zip_longest(good, bad)))
    outcomes = await asyncio.gather(
        *(call for call in calls if call is not None), return_exceptions=True
    )
    errors = [outcome for outcome in outcomes if isinstance(outcome, InferenceServerException)]
    assert len(errors) == 2
    assert all("scale" in str(error) for error in errors)
    answers = [result.as_numpy("y")[0][0] for result in outcomes if result not in errors]
    assert sorted(answers) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]


async def test_a_broken_model_is_named_and_the_others_are_served(triton: TritonServer) -> None:
    async with asyncio.timeout(60):
        while True:
            listed = {(state.name, state.version): state for state in await triton.model_states()}
            assert listed["scale", "1"].state == listed["scale", "2"].state == "READY"
            if listed["broken", "1"].state == "UNAVAILABLE":
                break
            await asyncio.sleep(0.05)
    assert "cannot load" in listed["broken", "1"].reason


async def test_a_new_version_is_taken_up(
    triton: TritonServer, repository: Path, client: InferenceServerClient
) -> None:
    save_scale(repository, "7", 7.0)
    async with asyncio.timeout(60):
        while not await client.is_model_ready("scale", "7"):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    result = await infer(client, [[1.0, 1.0]])
    assert (result.get_response().model_version, result.as_numpy("y")[0][0]) == ("7", 7.0)
    assert (await infer(client, [[1.0, 1.0]], "1")).as_numpy("y")[0][0] == 2.0
    shutil.rmtree(repository / "scale" / "7")


async def test_killed_and_started_again_on_the_same_port(
    triton: TritonServer, client: InferenceServerClient
) -> None:
    assert triton.pid is not None
    family = [triton.pid, *(child.pid for child in psutil.Process(triton.pid).children(True))]
    assert len(family) > 1
    triton.kill()
    assert await triton.wait() != 0
    assert not [pid for pid in family if psutil.pid_exists(pid)]
    await triton.bring_up()
    # A client connects again by itself, after its channel's backoff.
    async with asyncio.timeout(60):
        while True:
            try:
                result = await infer(client, [[1.0, 1.0]], "1")
                break
            except InferenceServerException:
                await asyncio.sleep(0.05)
    assert result.as_numpy("y")[0][0] == 2.0


def test_a_missing_repository_is_refused(tmp_path: Path) -> None:
    server = TritonServer(tmp_path, log=tmp_path / "log", models=tmp_path / "nowhere")
    with pytest.raises(StackConfigurationError, match=r"nowhere is not a folder.*--models"):
        server.check()


def test_another_platform_is_told_what_to_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    server = TritonServer(tmp_path, log=tmp_path / "log")
    with pytest.raises(StackConfigurationError, match="MQINFER_TRITON_URL"):
        server.check()


def test_a_numpy_that_its_backend_cannot_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.5.1")
    server = TritonServer(tmp_path, log=tmp_path / "log")
    with pytest.raises(StackConfigurationError, match=r"a NumPy before 2, not 2\.5\.1"):
        server.check()
