import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer.errors import WiringError
from mqinfer.message import Message, MessageInfo, Rejected, Row, key_token


class Leaf(Message, subject="plants.leaf", key="position", ordered=True, wire="msgpack"):
    position: str
    number: int = 0


class DiseaseGrade(Row, order_by=("position", "day")):
    position: str
    day: int = 0


def test_keywords_are_kept():
    assert Leaf.__mqinfer__ == MessageInfo(
        subject="plants.leaf", key="position", ordered=True, wire="msgpack"
    )
    assert DiseaseGrade.__mqinfer__ == MessageInfo(
        subject="disease_grade", table="disease_grade", order_by=("position", "day")
    )


def test_names_come_from_the_class():
    class DroneImage(Message):
        pass

    class Plain(Row, table="other", order_by="x"):
        x: int

    assert DroneImage.__mqinfer__ == MessageInfo(subject="drone_image")
    assert Plain.__mqinfer__.subject == "other"
    assert Plain.__mqinfer__.order_by == ("x",)


def test_messages_are_structs_that_do_not_change():
    leaf = Leaf("p1", number=3)
    assert leaf == Leaf("p1", 3)
    assert isinstance(leaf, msgspec.Struct)
    with pytest.raises(AttributeError):
        leaf.number = 4
    assert isinstance(DiseaseGrade("p1"), Message)


def test_keywords_of_msgspec_are_passed_on():
    class Small(Message, kw_only=True, omit_defaults=True, rename="camel"):
        first_field: int = 0
        other: int

    assert msgspec.json.encode(Small(other=1)) == b'{"other":1}'
    with pytest.raises(WiringError, match="foo= is no class keyword"):

        class Wrong(Message, foo=1):
            pass


def test_a_subclass_has_fields_of_its_parent_and_a_name_of_its_own():
    class Child(Leaf):
        extra: int = 0

    class Grade(DiseaseGrade):
        pass

    assert Child.__struct_fields__ == ("position", "number", "extra")
    assert Child.__mqinfer__ == MessageInfo(subject="child")
    assert Grade.__mqinfer__.table == "grade"


@pytest.mark.parametrize(
    ("base", "keywords", "text"),
    [
        (Message, {"subject": "a b"}, "X: subject 'a b' must be tokens of letters, digits"),
        (Message, {"subject": "a..b"}, "must be tokens"),
        (Message, {"subject": "a.*"}, "must be tokens"),
        (Message, {"subject": "ä"}, "must be tokens"),
        (Message, {"subject": "a\n"}, "must be tokens"),
        (Message, {"key": "nope"}, "X: no field 'nope'; it has field"),
        (Message, {"ordered": True}, "X: ordered=True needs key="),
        (Message, {"wire": "xml"}, "X: wire='xml' must be 'json' or 'msgpack'"),
        (Message, {"table": "x"}, "X: table= belongs to a Row; derive X from mqinfer.Row"),
        (Message, {"order_by": "field"}, "X: order_by= belongs to a Row"),
        (Row, {"table": "a-b"}, "X: 'a-b' cannot name a table"),
        (Row, {"table": "1a"}, "cannot name a table"),
        (Row, {"table": "a; DROP TABLE b"}, "cannot name a table"),
        (Row, {"order_by": ("field", "nope")}, "X: no field 'nope'; it has field"),
        (Message, {"keep": "90d"}, "X: keep= belongs to a Row"),
        (Row, {"keep": "soon"}, "X: keep= 'soon' is no duration: write"),
        (Row, {"keep": "-1d"}, "is no duration"),
        (Row, {"keep": ""}, "is no duration"),
        (Row, {"keep": True}, "is no duration"),
        (Row, {"keep": "23h"}, "X: keep='23h' must be a day at least"),
        (Row, {"keep": 0}, "X: keep=0 must be a day at least"),
    ],
)
def test_what_cannot_work_is_refused_where_it_is_written(base, keywords, text):
    with pytest.raises(WiringError, match=re.escape(text)):

        class X(base, **keywords):
            field: int = 0


def test_how_long_rows_are_kept():
    class Kept(Row, keep="1w"):
        field: int = 0

    assert Kept.__mqinfer__.keep == 7 * 86_400
    assert DiseaseGrade.__mqinfer__.keep is None


def test_rejected_says_why():
    assert Rejected("too dark").reason == "too dark"


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("p1", "p1"),
        ("a.b", "a%2Eb"),
        ("a b", "a%20b"),
        ("*", "%2A"),
        (">", "%3E"),
        ("é", "%C3%A9"),
        ("a%b", "a%25b"),
        ("", "%00"),
        (7, "7"),
        (None, "None"),
        ("A=+/:@~-_", "A=+/:@~-_"),
    ],
)
def test_keys_become_one_token(value, token):
    assert key_token(value) == token


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_any_key_is_one_token_that_stands_for_it_alone(text):
    token = key_token(text)
    assert re.fullmatch(r"[A-Za-z0-9_=+/:@~%-]+", token)
    plain = re.sub("%(..)", lambda found: chr(int(found[1], 16)), token).encode("latin-1").decode()
    assert plain == (text or "\0")
