"""Compressed bodies: every encoding whatever the cuts, frames as ClickHouse writes them."""

from __future__ import annotations

import struct
import urllib.request

import pytest
from clickhouse_cityhash.cityhash import CityHash128
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.stack import ClickHouseServer
from mqinfer.stack.clickhouse import codec
from tests.stack.wire import http, server

__all__ = ["server"]

ENCODINGS = ("lz4", "zstd", "gzip", "deflate", "br", "xz", "bz2")


def feed(decoder: codec.Decoder, data: bytes, step: int) -> bytes:
    plain = b"".join(decoder.feed(data[at : at + step]) for at in range(0, len(data), step))
    decoder.finish()
    return plain


def frame(method: int, data: bytes, plain_size: int) -> bytes:
    written = struct.pack("<BII", method, 9 + len(data), plain_size) + data
    number = CityHash128(written)
    return struct.pack("<QQ", number >> 64, number & (2**64 - 1)) + written


@pytest.mark.parametrize("encoding", [*ENCODINGS, "frames"])
@given(pieces=st.lists(st.binary(max_size=300), max_size=5), step=st.integers(1, 400))
def test_what_is_encoded_is_decoded_however_it_is_cut(
    encoding: str, pieces: list[bytes], step: int
) -> None:
    encoder = codec.FrameEncoder() if encoding == "frames" else codec.encoder(encoding)
    packed = b"".join(map(encoder.compress, pieces)) + encoder.flush()
    decoder = codec.FrameDecoder() if encoding == "frames" else codec.decoder(encoding)
    assert decoder is not None
    assert feed(decoder, packed, step) == b"".join(pieces)


@pytest.mark.parametrize("encoding", [*ENCODINGS, "frames"])
def test_what_is_cut_off_is_refused(encoding: str) -> None:
    encoder = codec.FrameEncoder() if encoding == "frames" else codec.encoder(encoding)
    packed = encoder.compress(bytes(range(256)) * 10) + encoder.flush()
    decoder = codec.FrameDecoder() if encoding == "frames" else codec.decoder(encoding)
    assert decoder is not None
    with pytest.raises(codec.CodecError, match="cut off"):
        feed(decoder, packed[:-5], 100)


@given(st.binary(min_size=1, max_size=200))
def test_no_frames_at_all_are_refused(data: bytes) -> None:
    with pytest.raises(codec.CodecError):
        feed(codec.FrameDecoder(), data, 50)


def test_the_checksum_is_clickhouses() -> None:
    # CityHash 1.0.2, which ClickHouse keeps: later versions give other numbers.
    assert CityHash128(b"") == (0x3DF09DFC64C09A2B << 64) | 0x3CB540C392E51E29


@pytest.mark.parametrize(
    ("method", "packed"),
    [(0x02, b"1\t2\n"), (0x90, codec.zstd.compress(b"1\t2\n")),
     (0x82, codec.lz4.block.compress(b"1\t2\n", store_size=False))],
)  # fmt: skip
def test_an_insert_in_frames(server: ClickHouseServer, method: int, packed: bytes) -> None:
    http(server, "CREATE OR REPLACE TABLE framed (a UInt8, b UInt8) ENGINE = Memory")
    insert = {"query": "INSERT INTO framed FORMAT TSV", "decompress": "1"}
    body = frame(method, packed, 4) * 3
    assert http(server, body, **insert).status == 200
    assert http(server, "SELECT count(), sum(a), sum(b) FROM framed").body == b"3\t3\t6\n"
    damaged = b"x" + body[1:]
    answer = http(server, damaged, **insert)
    assert answer.code == "40"
    unchecked = "http_native_compression_disable_checksumming_on_decompress"
    assert http(server, damaged, **insert, **{unchecked: "1"}).status == 200
    assert http(server, body[:-1], **insert).code == "271"
    assert http(server, frame(0x91, b"x", 1), **insert).code == "271"
    assert http(server, "SELECT count() FROM framed").body == b"6\n"


def test_the_statement_itself_may_come_in_frames(server: ClickHouseServer) -> None:
    body = codec.FrameEncoder().compress(b"SELECT 1 + 1")
    assert http(server, body, decompress="1").body == b"2\n"


def test_an_answer_in_frames(server: ClickHouseServer) -> None:
    query = "SELECT number FROM numbers(300_000)"
    rows = http(server, query).body
    answer = http(server, query, compress="1")
    assert answer.body[16] == 0x82
    assert feed(codec.FrameDecoder(), answer.body, 1000) == rows
    both = http(
        server, query, {"Accept-Encoding": "gzip"}, compress="1", enable_http_compression="1"
    )
    outer = codec.decoder("gzip")
    assert outer is not None
    assert feed(codec.FrameDecoder(), feed(outer, both.body, 1000), 1000) == rows
    refused = http(server, "SELEC 1", compress="1")
    assert refused.code == "62"
    assert feed(codec.FrameDecoder(), refused.body, 1000).startswith(b"Code: 62.")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_both_ways(server: ClickHouseServer, encoding: str) -> None:
    encoder = codec.encoder(encoding)
    body = encoder.compress(b"SELECT number FROM numbers(400_000)") + encoder.flush()
    headers = {"Content-Encoding": encoding, "Accept-Encoding": f"{encoding};q=1.0, identity"}
    answer = http(server, body, headers, enable_http_compression="1")
    assert answer.headers["content-encoding"] == encoding
    decoder = codec.decoder(encoding)
    assert decoder is not None
    plain = feed(decoder, answer.body, 5000)
    assert plain == b"".join(b"%d\n" % number for number in range(400_000))


def test_an_encoding_that_nobody_knows(server: ClickHouseServer) -> None:
    assert http(server, b"x", {"Content-Encoding": "snappier"}).code == "271"
    answer = http(server, "SELECT 1", {"Accept-Encoding": "gzip"})
    assert (answer.body, answer.headers.get("content-encoding")) == (b"1\n", None)
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/?enable_http_compression=1", b"SELECT 1",
        {"Accept-Encoding": "snappier"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=60) as plain:
        assert plain.read() == b"1\n"
