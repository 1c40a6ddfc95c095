"""The pure parts: preferences, tags, tokens, hashes of keys, addresses, times to come again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.errors import ConfigurationError
from mqinfer.gateway import preferences
from mqinfer.gateway.addresses import is_public
from mqinfer.gateway.load import LONGEST, UNKNOWN, seconds_until
from mqinfer.gateway.options import Options
from mqinfer.gateway.tenants import ANYBODY, Tenants, hashed, new_key
from mqinfer.gateway.validation import of_decoder, pointer
from mqinfer.web import signing


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], 0),
        (["wait=10"], 10),
        (["respond-async, wait=7"], 7),
        (["respond-async", "Wait = 7 ; x=1"], 7),
        (['wait="5"'], 5),
        (["wait=1000"], 60),
        (["wait=3, wait=9"], 3),
        (["wait=-1"], 0),
        (["wait=1.5"], 0),
        (["wait=٣"], 0),
        (["wait"], 0),
        (["await=4"], 0),
    ],
)
def test_how_long_a_client_would_wait(headers: list[str], seconds: float) -> None:
    assert preferences.wait(headers, 60) == seconds


@given(st.lists(st.text(max_size=300)))
def test_whatever_is_preferred_is_no_error(headers: list[str]) -> None:
    assert 0 <= preferences.wait(headers, 60) <= 60


@given(st.text(max_size=300), st.binary(max_size=50))
def test_whatever_is_known_is_no_error(header: str, body: bytes) -> None:
    etag = preferences.tag(body)
    assert preferences.known(header, etag) in (True, False)
    assert preferences.known(f'"x", W/{etag}', etag)
    assert preferences.known("*", etag)
    assert not preferences.known('"x"', etag)


def test_a_token_opens_the_events_of_one_request_for_a_while() -> None:
    token = signing.sign("secret", "a-1", "acme", 100.0)
    assert signing.opened("secret", "a-1", token, 99.0) == "acme"
    assert signing.opened("secret", "a-1", token, 101.0) is None
    assert signing.opened("secret", "a-2", token, 99.0) is None
    assert signing.opened("other", "a-1", token, 99.0) is None
    assert signing.opened("secret", "a-1", token.replace("100", "900"), 99.0) is None
    assert signing.opened("secret", "a-1", token.replace("acme", "evil"), 99.0) is None


@given(st.text(max_size=200))
def test_whatever_is_no_token_opens_nothing(token: str) -> None:
    assert signing.opened("secret", "a-1", token, 0.0) is None


def test_tenants_are_known_by_hashes_of_their_keys(tmp_path: Path) -> None:
    (one, of_one), (two, of_two) = new_key(), new_key()
    file = tmp_path / "keys.toml"
    file.write_text(f'[acme]\nkeys = ["{of_one}"]\n[zeta]\nkeys = ["{of_two}"]\nprefix = "z/y/"\n')
    clock = [0.0]
    tenants = Tenants(file, lambda: clock[0])
    assert one not in file.read_text()
    found = tenants.of(one)
    assert found is not None
    assert (found.name, found.prefix) == ("acme", "tenants/acme/")
    assert tenants.of(two).prefix == "z/y/"  # type: ignore[union-attr]
    for key in (None, "", "x", of_one):
        assert tenants.of(key) is None
    # Keys come and go without a restart; a file that is broken meanwhile changes nothing.
    file.write_text("[acme")
    clock[0] += 2
    assert tenants.of(one) is not None
    file.write_text(f'[zeta]\nkeys = ["{of_two}"]\n')
    os.utime(file, (1, 1))
    clock[0] += 2
    assert tenants.of(one) is None
    assert tenants.of(two) is not None
    assert Tenants().of(None) is ANYBODY


@pytest.mark.parametrize(
    "text",
    [
        "[a b]\nkeys = []",
        "[a]",
        "a = 1",
        '[a]\nkeys = ["plain"]',
        '[a]\nkeys = ["sha256:00"]',
        "[a]\nkeys = [1]",
        '[a]\nkeys = []\nprefix = "../b"',
        "[a]\nkeys = []\nprefix = 1",
        "[a]\nkeys = []\nother = 1",
        f'[a]\nkeys = ["{hashed("k")}"]\n[b]\nkeys = ["{hashed("l")}"]\nprefix = "tenants/a/b"',
        f'[a]\nkeys = ["{hashed("k")}"]\n[b]\nkeys = ["{hashed("k")}"]',
    ],
)
def test_keys_that_cannot_be_used(text: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError):
        Tenants(file)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1",
        "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "fc00::1",
        "fd12::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "2001:db8::1", "x", "",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808"])
def test_addresses_that_are(address: str) -> None:
    assert is_public(address)


@given(st.integers(1, 10**9), st.floats(0, 1e9), st.floats(0, 1))
def test_when_to_come_again(excess: int, rate: float, chance: float) -> None:
    assert 1 <= seconds_until(excess, rate, chance) <= LONGEST * 1.2 + 1


def test_when_to_come_again_follows_from_the_rate() -> None:
    assert seconds_until(100, 10.0, 0.0) == 10
    assert seconds_until(100, 10.0, 1.0) == 12
    assert seconds_until(1, 1e6, 0.0) == 1
    assert seconds_until(100, 0.0, 0.0) == UNKNOWN


def test_pointers() -> None:
    assert pointer(["a/b", 0, "c~d"]) == "/a~1b/0/c~0d"
    told = of_decoder(ValueError("Expected `int`, got `str` - at `$.leaves[3].x`"), "/input")
    assert (told.pointer, told.detail) == ("/input/leaves/3/x", "Expected `int`, got `str`")
    assert of_decoder(ValueError("no place"), "/input").pointer == "/input"


def test_options_that_contradict_each_other(tmp_path: Path) -> None:
    file = tmp_path / "x.pem"
    file.touch()
    for wrong in (
        {"tls_cert": file},
        {"tls_cert": file, "tls_key": tmp_path / "none"},
        {"keys": tmp_path / "none"},
        {"origins": ("example.org",)},
        {"origins": ("https://example.org/",)},
        {"origins": ("*",)},
    ):
        with pytest.raises(ConfigurationError):
            Options(**wrong)
