"""Identity: properties of ids, lineage, headers and keys, whatever was sent."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.identity import (
    MAX_ANCESTORS,
    MAX_ID,
    extend_ancestors,
    format_models,
    header_block,
    last_header,
    output_id,
    parse_ancestors,
    parse_header_block,
    parse_models,
    parse_status,
    safe_id,
)
from mqinfer.message import key_token

anything = st.text(st.characters(), max_size=40)  # lone surrogates as well
ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
parts = st.tuples(ids, ids, st.none() | ids, st.integers(0, 10**9))

# --- identity -------------------------------------------------------------------------------------


@given(parts, parts)
def test_output_ids_are_stable_and_differ(one: Any, other: Any) -> None:
    assert re.fullmatch("[0-9a-f]{32}", output_id(*one))
    assert output_id(*one) == output_id(*one)
    assert (output_id(*one) == output_id(*other)) == (one == other)


@given(anything, anything)
def test_safe_ids_fit_headers_and_stay_different(one: str, other: str) -> None:
    safe = safe_id(one)
    assert safe_id(safe) == safe
    assert len(safe) <= 2 * MAX_ID
    if one:
        assert parse_ancestors(safe) == (safe,)
        assert parse_header_block(header_block({"Mq-Id": safe})) == {"Mq-Id": safe}
    assert (safe == safe_id(other)) == (one == other)


@given(st.lists(anything, max_size=60))
def test_ancestors_are_bounded_whatever_was_sent(names: list[str]) -> None:
    chain = parse_ancestors(" ".join(names))
    assert len(chain) <= MAX_ANCESTORS
    assert [safe_id(one) for one in chain] == list(chain)
    longer = extend_ancestors(chain, "parent")
    assert len(longer) <= MAX_ANCESTORS
    assert longer[-1] == "parent"
    assert longer[:1] == (chain or ("parent",))[:1]
    assert parse_ancestors(" ".join(longer)) == longer


@given(anything)
def test_models_survive_what_was_sent(text: str) -> None:
    models = parse_models(text)
    assert parse_models(format_models(models)) == models


# --- headers --------------------------------------------------------------------------------------

names = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=":"), min_size=1
)


@given(st.dictionaries(names, st.text(st.characters(exclude_categories=["Cs"]))))
def test_headers_come_back(pairs: dict[str, str]) -> None:
    found = parse_header_block(header_block(pairs))
    # Bytes.strip and line ends: what NATS itself takes away.
    expected = {
        name: re.sub("[\r\n]", " ", value).encode().strip().decode()
        for name, value in pairs.items()
    }
    assert found == expected


@given(st.dictionaries(anything, anything))
def test_no_pair_can_add_another(pairs: dict[str, str]) -> None:
    block = header_block(pairs)
    assert block.startswith(b"NATS/1.0\r\n")
    assert block.endswith(b"\r\n\r\n")
    assert block.count(b"\r\n") <= len(pairs) + 2
    assert len(parse_header_block(block)) <= len(pairs)


@given(st.binary(max_size=300) | st.binary(max_size=99).map(lambda raw: b"NATS/1.0\r\n" + raw))
def test_any_bytes_are_parsed_and_can_be_sent_again(block: bytes) -> None:
    pairs = parse_header_block(block)
    header_block(pairs)
    code, _ = parse_status(block)
    assert code >= 0
    assert all(last_header(block, name) is not None for name in ("Nats-Subject", *pairs))


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (b"NATS/1.0 409 Consumer Deleted\r\n\r\n", (409, "Consumer Deleted")),
        (b"NATS/1.0 503\r\n\r\n", (503, "")),
        (b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 3\r\n\r\n", (204, "EOB")),
        (b"NATS/1.0\r\nNats-Msg-Id: 409 x\r\n\r\n", (0, "")),
        (b"", (0, "")),
    ],
)
def test_a_status_is_told_from_a_message(block: bytes, status: tuple[int, str]) -> None:
    assert parse_status(block) == status


def test_what_the_server_added_is_not_what_a_publisher_called_the_same() -> None:
    block = header_block({"Nats-Subject": "forged"})[:-2] + b"Nats-Subject: true\r\n\r\n"
    assert parse_header_block(block) == {"Nats-Subject": "forged"}
    assert last_header(block, "Nats-Subject") == "true"
    assert last_header(block, "Nats-Stream") == ""


# --- keys -----------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.integers() | st.floats())
def test_a_key_is_one_token(value: object) -> None:
    token = key_token(value)
    assert re.fullmatch(r"[^\s.*>\x00-\x20\x7f]+", token)
    assert token.isascii()


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_keys_can_be_read_back(text: str) -> None:
    from urllib.parse import unquote

    assert unquote(key_token(text)) == text
