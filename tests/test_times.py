from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.errors import ConfigurationError
from mqinfer.times import parse_duration, parse_size, parse_time

NOW = datetime(2026, 5, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000),
        ("500ms", 0.5),
        ("20us", 2e-5),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1 h 30 min", 5400),
        ("1d", 86400),
        ("2w", 1209600),
        (" 2H ", 7200),
        (0, 0),
        (2.5, 2.5),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", " ", "h", "-1", "-1s", "1y", "2h!", "nan", "inf", "1e999", "2 3", "٣s", "1,5", True,
     float("nan"), float("inf"), -1, 1e300, 10**400, -(10**400), "300000d"],
)  # fmt: skip
def test_bad_durations_say_what_to_write(text):
    with pytest.raises(ConfigurationError, match="is no duration: write seconds, or"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("2026-05-01", datetime(2026, 5, 1, tzinfo=UTC)),
        ("2026-05-01T12:30", datetime(2026, 5, 1, 12, 30, tzinfo=UTC)),
        ("2026-05-01 12:30:00Z", datetime(2026, 5, 1, 12, 30, tzinfo=UTC)),
        ("2026-05-01T12:30:00+02:00", datetime(2026, 5, 1, 10, 30, tzinfo=UTC)),
        ("2h", NOW - timedelta(hours=2)),
        ("2h ago", NOW - timedelta(hours=2)),
        ("90", NOW - timedelta(seconds=90)),
        ("now", NOW),
        ("1777593600", datetime(2026, 5, 1, tzinfo=UTC)),
        ("1777593600.5", datetime(2026, 5, 1, 0, 0, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_times(text, when):
    assert parse_time(text, now=NOW) == when


@pytest.mark.parametrize("text", ["", "ago", "yesterday", "2026-13-01", "-2h", "9e30", "999999w"])
def test_bad_times_say_what_to_write(text):
    with pytest.raises(ConfigurationError, match="is no time: write ISO 8601"):
        parse_time(text, now=NOW)


def test_eight_digits_are_not_guessed():
    with pytest.raises(ConfigurationError, match="2026-05-01, or the seconds as 20260501s"):
        parse_time("20260501", now=NOW)


def test_a_time_without_now_is_of_today():
    before = datetime.now(UTC)
    assert before <= parse_time("0s") <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("65536", 65536),
        (65536, 65536),
        ("64MB", 64_000_000),
        ("64 MiB", 64 * 1024**2),
        ("1.5GiB", 3 * 1024**3 // 2),
        ("2kb", 2000),
        ("10B", 10),
        ("1TB", 10**12),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", -1, "1MBit", "64M", "1e3MB", True])
def test_bad_sizes_say_what_to_write(text):
    with pytest.raises(ConfigurationError, match="is no size: write bytes, or"):
        parse_size(text)


@given(st.text(max_size=20))
def test_any_text_is_a_value_or_a_configuration_error(text):
    for parse in (parse_duration, parse_time, parse_size):
        try:
            parse(text)
        except ConfigurationError as error:
            assert repr(text) in str(error)  # noqa: PT017 - both outcomes are right
