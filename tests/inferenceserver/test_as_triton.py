"""What the embedded Triton is tested with, against our own server: the same tests, where they fit.

Left out are those of Triton's Python models, which our server does not have.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from onnx import TensorProto
from tritonclient.grpc.aio import InferenceServerClient

from mqinfer.stack import InferenceServer
from tests.adapters.test_triton import (
    test_a_cancelled_caller_leaves_its_neighbours,
    test_a_cancelled_request_ends_at_once,
    test_a_killed_server_fails_no_call,
    test_a_model_is_described,
    test_a_model_unloaded_while_in_use_stops_only_its_callers,
    test_a_refusal_is_an_error_with_the_words_of_triton,
    test_a_request_that_takes_too_long_is_unavailable,
    test_a_server_that_hangs_is_noticed_long_before_the_timeout,
    test_bad_items_do_not_fail_their_neighbours,
    test_calls_are_gathered,
    test_odd_layouts_and_types_arrive_as_they_are,
    test_strings_and_models_without_batch_dimension,
    test_strings_go_there_and_back,
    test_tensors_larger_than_the_default_limit_of_grpc_pass,
    test_the_latest_version_answers_unless_one_is_pinned,
    test_tls_to_a_server_without_it_is_unavailable,
    test_versions_answer_side_by_side,
    test_what_does_not_fit_is_refused_before_it_is_sent,
    test_what_is_not_served_is_unavailable,
)
from tests.stack.test_triton import (
    MORE,
    test_a_bad_request_does_not_fail_its_neighbours,
    test_a_broken_model_is_named_and_the_others_are_served,
    test_a_new_version_is_taken_up,
    test_killed_and_started_again_on_the_same_port,
    test_requests_are_gathered_and_each_gets_its_own,
    test_two_versions_side_by_side,
)
from tests.support.models import save_echo, save_scale, save_table
from tests.support.triton import inference, server

__all__ = [
    "inference",
    "server",
    "test_a_bad_request_does_not_fail_its_neighbours",
    "test_a_broken_model_is_named_and_the_others_are_served",
    "test_a_cancelled_caller_leaves_its_neighbours",
    "test_a_cancelled_request_ends_at_once",
    "test_a_killed_server_fails_no_call",
    "test_a_model_is_described",
    "test_a_model_unloaded_while_in_use_stops_only_its_callers",
    "test_a_new_version_is_taken_up",
    "test_a_refusal_is_an_error_with_the_words_of_triton",
    "test_a_request_that_takes_too_long_is_unavailable",
    "test_a_server_that_hangs_is_noticed_long_before_the_timeout",
    "test_bad_items_do_not_fail_their_neighbours",
    "test_calls_are_gathered",
    "test_killed_and_started_again_on_the_same_port",
    "test_odd_layouts_and_types_arrive_as_they_are",
    "test_requests_are_gathered_and_each_gets_its_own",
    "test_strings_and_models_without_batch_dimension",
    "test_strings_go_there_and_back",
    "test_tensors_larger_than_the_default_limit_of_grpc_pass",
    "test_the_latest_version_answers_unless_one_is_pinned",
    "test_tls_to_a_server_without_it_is_unavailable",
    "test_two_versions_side_by_side",
    "test_versions_answer_side_by_side",
    "test_what_does_not_fit_is_refused_before_it_is_sent",
    "test_what_is_not_served_is_unavailable",
]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository") / "models"
    root.mkdir()
    save_table(root, "1", 1.0)
    save_table(root, "2", 10.0)
    save_echo(root, "words", TensorProto.STRING, ["n", "w"])
    save_echo(root, "half", TensorProto.FLOAT16, ["n", 2, 3])
    save_echo(root, "flags", TensorProto.BOOL, ["a", "b"], batch=0)
    save_scale(root, "1", 2.0, MORE)
    save_scale(root, "2", 3.0, MORE)
    (root / "broken" / "1").mkdir(parents=True)
    (root / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    (root / "broken" / "config.pbtxt").write_text((root / "scale" / "config.pbtxt").read_text())
    return root


@pytest.fixture
def triton(ours: InferenceServer) -> InferenceServer:
    return ours


@pytest_asyncio.fixture
async def client(ours: InferenceServer) -> AsyncIterator[InferenceServerClient]:
    async with InferenceServerClient(ours.url) as client:
        yield client
