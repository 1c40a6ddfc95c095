"""Headers by setting: read from text, sent with every call, shown nowhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer import wiring
from mqinfer.errors import ConfigurationError, Unavailable
from mqinfer.headers import parse_headers
from mqinfer.settings import Settings


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("authorization: Bearer abc", {"authorization": "Bearer abc"}),
        ("authorization=Bearer abc", {"authorization": "Bearer abc"}),
        (
            "Authorization: Basic YQ==, x-team=a:b,",
            {"authorization": "Basic YQ==", "x-team": "a:b"},
        ),
        ("accept: a, b=c\nx: y", {"accept": "a, b=c", "x": "y"}),
    ],
)
def test_headers_are_read(text: str, headers: dict[str, str]) -> None:
    assert parse_headers(text) == headers


@pytest.mark.parametrize(
    "text", ["secret", "a: secret, secret", "a b: secret", "x: secret, X: 2", "grpc-x: secret",
             "x-bin: secret", "x: secret\u00fc", "secret:", ",", "x: sec\x01ret"]
)  # fmt: skip
def test_what_cannot_be_sent_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigurationError, match="MQINFER_TRITON_HEADERS") as refused:
        Settings.load({"MQINFER_TRITON_HEADERS": text})
    assert "secret" not in str(refused.value)


names = st.from_regex(r"x[a-z0-9_.-]{0,9}", fullmatch=True).filter(lambda n: not n.endswith("-bin"))
values = st.from_regex(r"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True)


@given(st.dictionaries(names, values, min_size=2, max_size=4))
def test_any_value_may_stand_in_a_line(headers: dict[str, str]) -> None:
    assert parse_headers("\n".join(f"{name}: {v}" for name, v in headers.items())) == headers


async def test_headers_go_with_every_call_and_are_shown_nowhere() -> None:
    import grpc

    seen: list[tuple[str, object]] = []

    class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
        """Writes down what it is sent, and answers with a message that holds nothing."""

        def service(self, details: object) -> object:
            sent = dict(details.invocation_metadata)  # type: ignore[attr-defined]
            seen.append((details.method.rpartition("/")[2], sent.get("authorization")))  # type: ignore[attr-defined]

            async def answer(_request: bytes, _context: object) -> bytes:
                return b""

            return grpc.unary_unary_rpc_method_handler(answer)

    listening = grpc.aio.server(handlers=(Handler(),))
    port = listening.add_insecure_port("127.0.0.1:0")
    await listening.start()
    settings = Settings.load(
        {}, triton_url=f"127.0.0.1:{port}", triton_headers="Authorization: S3CRET"
    )
    triton = wiring.triton(settings)
    try:
        for call in (triton.ready(), triton.describe("m")):
            with pytest.raises(Unavailable):
                await call
        await triton.versions()
        reply = await triton.infer("m", None, {"x": np.zeros(1, np.float32)}, timeout=60)
        assert reply.outputs == {}
    finally:
        await triton.close()
        await listening.stop(None)
    called = {name for name, _ in seen}
    assert called == {"ServerReady", "ModelReady", "RepositoryIndex", "ModelInfer"}
    assert {value for _, value in seen} == {"S3CRET"}
    assert "S3CRET" not in f"{settings!r} {triton!r}"
