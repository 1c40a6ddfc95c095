import logging
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.errors import ConfigurationError
from mqinfer.masking import mask_url
from mqinfer.settings import Settings
from mqinfer.stack import Stack


def test_defaults_are_where_mqinfer_up_serves():
    served = Stack().environment()
    served["MQINFER_BLOBS"] = os.path.relpath(served["MQINFER_BLOBS"])
    assert Settings.load(served) == Settings.load({}) == Settings()
    assert repr(Settings()) == "Settings()"


def test_the_environment_is_read():
    settings = Settings.load(
        {
            "MQINFER_NATS_URL": "a:4222, tls://b",
            "MQINFER_TRITON_URL": "grpcs://triton:8001/",
            "MQINFER_CLICKHOUSE_URL": "https://u:p@ch:8443/plants",
            "MQINFER_BLOBS": "s3://bucket/prefix",
            "MQINFER_INLINE_BLOB_BYTES": "1KiB",
            "MQINFER_MAX_PIXELS": "5_000_000",
            "MQINFER_GRACE": "1m30s",
            "MQINFER_LOG_LEVEL": "DEBUG",
            "MQINFER_LOOP": "",
            "PATH": "/bin",
        }
    )
    assert settings.nats_servers == ["nats://a:4222", "tls://b"]
    assert settings.triton_url == "grpcs://triton:8001"
    assert settings.blobs == "s3://bucket/prefix"
    assert settings.inline_blob_bytes == 1024
    assert settings.max_pixels == 5_000_000
    assert settings.grace == 90
    assert settings.log_level == "debug"
    assert settings.loop == "auto"


def test_the_process_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("MQINFER_GRACE", "7")
    assert Settings.load().grace == 7


def test_what_is_passed_wins_and_none_is_not_passed(tmp_path):
    environ = {"MQINFER_GRACE": "7", "MQINFER_BLOBS": "elsewhere"}
    settings = Settings.load(environ, grace="2m", blobs=tmp_path, nats_url=None)
    assert settings.grace == 120
    assert settings.blobs == str(tmp_path)
    assert settings.nats_url == "nats://127.0.0.1:4222"
    assert Settings.load(environ, grace=3).grace == 3


def test_an_unknown_override_is_a_mistake_of_the_caller():
    with pytest.raises(TypeError, match="no setting is called nats_ulr"):
        Settings.load({}, nats_ulr="x")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("NATS_URL", "http://x", "nats://, tls://, ws:// or wss:// URLs"),
        ("NATS_URL", ",", "separated by commas"),
        ("NATS_URL", "nats://h:99999", "URLs"),
        ("NATS_URL", "nats://h:0", "URLs"),
        ("NATS_URL", "nats://a b:1", "URLs"),
        ("TRITON_URL", "http://127.0.0.1:8000", "host:port of the gRPC endpoint"),
        ("TRITON_URL", "triton", "host:port"),
        ("TRITON_URL", "triton:8001/v2", "host:port"),
        ("TRITON_URL", "a:8001,b", "several separated by commas"),
        ("TRITON_URL", ",", "host:port"),
        ("CLICKHOUSE_URL", "127.0.0.1:8123", "a URL such as http://"),
        ("CLICKHOUSE_URL", "http://", "a URL"),
        ("BLOBS", "ftp://x/y", "a folder, s3://"),
        ("BLOBS", "s3://", "a folder, s3://"),
        ("INLINE_BLOB_BYTES", "64 apples", "bytes, or a number with kB"),
        ("MAX_IMAGE_BYTES", "0", "more than nothing"),
        ("MAX_PIXELS", "0", "a whole number, at least 1"),
        ("MAX_PIXELS", "1e8", "a whole number"),
        ("MAX_PIXELS", "-5", "a whole number"),
        ("GRACE", "soon", "seconds, or a number with"),
        ("LOG_LEVEL", "loud", "one of debug, info, warning, error, critical"),
        ("LOG_FORMAT", "xml", "one of auto, console, json"),
        ("LOOP", "trio", "one of asyncio, uvloop, auto"),
        ("INFERENCE", "tpu", "one of auto, triton, onnx"),
    ],
)
def test_a_bad_value_names_the_variable_the_value_and_what_is_allowed(name, value, allowed):
    with pytest.raises(ConfigurationError) as refused:
        Settings.load({f"MQINFER_{name}": value})
    text = str(refused.value)
    assert text.startswith(f"MQINFER_{name}={value!r} is not allowed: it must be ")
    assert allowed in text
    assert "\n" not in text


@pytest.mark.parametrize("value", [True, 1.5, [1], -1])
def test_a_bad_override_is_refused_too(value):
    with pytest.raises(ConfigurationError, match="MQINFER_MAX_PIXELS="):
        Settings.load({}, max_pixels=value)


def test_files_must_exist(tmp_path):
    with pytest.raises(ConfigurationError, match=r"MQINFER_NATS_CREDS='.*x': there is no such"):
        Settings.load({"MQINFER_NATS_CREDS": str(tmp_path / "x")})
    with pytest.raises(ConfigurationError, match="there is no such file"):
        Settings.load({"MQINFER_TRITON_TLS_CA": str(tmp_path)})
    (tmp_path / "x").write_text("")
    settings = Settings.load({"MQINFER_TRITON_TLS_CA": str(tmp_path / "x")})
    assert settings.triton_tls_ca == str(tmp_path / "x")


def test_contradictions_are_refused():
    with pytest.raises(
        ConfigurationError, match="MQINFER_NATS_USER and MQINFER_NATS_TOKEN are set: choose one"
    ):
        Settings.load({}, nats_user="u", nats_token="t")
    with pytest.raises(ConfigurationError, match="MQINFER_NATS_PASSWORD is set without MQINFER_NA"):
        Settings(nats_password="p")
    with pytest.raises(ConfigurationError, match="TLS_KEY is set without MQINFER_TRITON_TLS_CERT"):
        Settings(triton_tls_key="k")


def test_an_unknown_variable_is_logged_with_the_nearest_name(caplog):
    with caplog.at_level(logging.WARNING):
        Settings.load({"MQINFER_NATS_ULR": "secret-value", "MQINFER_QQQQQQQQ": "1", "OTHER": "x"})
    assert caplog.messages == [
        "MQINFER_NATS_ULR is set, but no setting has this name; did you mean MQINFER_NATS_URL?",
        "MQINFER_QQQQQQQQ is set, but no setting has this name",
    ]


def test_secrets_are_never_shown():
    settings = Settings.load(
        {},
        nats_user="u",
        nats_password="hunter2",
        nats_url="nats://bob:hunter2@a:1,nats://hunter2@b:2",
        clickhouse_url="http://u:hunter2@h:8123/d?password=hunter2",
    )
    assert settings.nats_password == "hunter2"
    for text in (repr(settings), str(settings), f"{settings}"):
        assert "hunter2" not in text
    assert "nats_user='u'" in repr(settings)
    assert "nats://bob:***@a:1,nats://***@b:2" in repr(settings)
    with pytest.raises(ConfigurationError) as refused:
        Settings.load({"MQINFER_CLICKHOUSE_URL": "ftp://u:hunter2@h"})
    assert "hunter2" not in str(refused.value)
    assert "ftp://u:***@h" in str(refused.value)


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("http://default@h:8123/x", "http://default@h:8123/x"),
        ("http://u:p@h", "http://u:***@h"),
        ("http://u:p@ss/w?rd@h", "http://u:***@h"),
        ("nats://a:b@h1,nats://c:d@h2", "nats://a:***@h1,nats://c:***@h2"),
        ("nats://tok@h", "nats://***@h"),
        ("https://h/x?X-Amz-Signature=abc&a=b", "https://h/x?X-Amz-Signature=***&a=b"),
        ("cannot reach http://u:p@h:1/ now", "cannot reach http://u:***@h:1/ now"),
        ("mail me at a@b.c", "mail me at a@b.c"),
        ("http://h:80/x", "http://h:80/x"),
        (".mqinfer/blobs", ".mqinfer/blobs"),
    ],
)
def test_mask_url(url, masked):
    assert mask_url(url) == masked


SECRET = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=6).filter(
    lambda text: not set(text) & set(",\"'<>")
)


@given(SECRET, st.sampled_from(["nats", "http", "https", "tls"]))
def test_no_password_survives_masking(secret, scheme):
    assert secret not in mask_url(f"{scheme}://user:{secret}@host/x").replace("***", "")


def test_describe_covers_every_setting():
    rows = Settings.describe()
    names = [row.env for row in rows]
    assert len(names) == len(set(names)) == len(Settings.__dataclass_fields__)
    assert all(row.meaning and row.type for row in rows)
    by_name = {row.env: row for row in rows}
    assert by_name["MQINFER_LOG_FORMAT"].type == "auto, console, json"
    assert by_name["MQINFER_GRACE"].default == "25.0"
    assert by_name["MQINFER_NATS_CREDS"].default == ""
    # What is shown as the default is accepted as a value.
    defaults = {row.env: row.default for row in rows}
    assert Settings.load(defaults) == Settings()


def test_settings_are_frozen():
    with pytest.raises(AttributeError):
        Settings().grace = 1
