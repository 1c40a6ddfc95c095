"""Which consumers an app has, and what they read: whatever is wired to what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqinfer import App, Message, Row, plan
from mqinfer.errors import ConfigurationError
from mqinfer.rowpacks.which import pack_subject
from mqinfer.task import Task


class Photo(Message, key="plant"):
    plant: str


class Leaf(Message):
    plant: str


class Seen(Message, key="plant", ordered=True):
    plant: str


class Word(Message, subject="plant.word"):
    text: str


class Grade(Row, table="plan_grade", order_by="plant"):
    plant: str


KINDS = [Photo, Leaf, Seen, Word, Grade]

wirings = st.lists(
    st.tuples(st.sampled_from(KINDS), st.lists(st.sampled_from(KINDS), max_size=3, unique_by=id)),
    min_size=1,
    max_size=6,
)


def app_of(wiring: list[tuple[type[Message], list[type[Message]]]], *, asked: bool = False) -> App:
    """An app whose stage number n reads and writes as `wiring[n]` says."""
    app = App("plan", partitions=3)
    for number, (reads, writes) in enumerate(wiring):

        async def handler(message: Any) -> Any: ...

        returned: Any = None
        for kind in writes:
            returned = kind if returned is None else returned | kind
        handler.__annotations__ = {
            "message": reads,
            "return": None if returned is None else returned | None,
        }
        app.stage(name=f"s{number}")(handler)
    reads, writes = wiring[0]
    if asked and writes and reads is not Grade:
        app.endpoint("asked", reads=reads, answers=writes[0])
    return app


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject is one of a filter's, by NATS' rules."""
    words, wanted = subject.split("."), pattern.split(".")
    if wanted[-1] == ">":
        return len(words) >= len(wanted) and all(
            two in ("*", one) for one, two in zip(words, wanted[:-1], strict=False)
        )
    return len(words) == len(wanted) and all(
        two in ("*", one) for one, two in zip(words, wanted, strict=True)
    )


def names(tasks: Iterable[Task]) -> set[str]:
    return {task.name for task in tasks}


# --- tasks ---------------------------------------------------------------------------------------


def test_an_app_of_nothing_says_what_to_declare() -> None:
    with pytest.raises(ConfigurationError, match=r"app plan has no stages: declare one with @app"):
        plan.tasks(App("plan"))


def test_a_name_that_is_none_is_told_with_those_there_are() -> None:
    app = app_of([(Photo, [Grade])])
    with pytest.raises(ConfigurationError) as error:
        plan.tasks(app, ["s0", "s1", "s2"])
    assert "no stage s1, s2; it has s0, sink-plan_grade, sink-mqinfer_dead_letters" in str(
        error.value
    )


@given(wirings, st.data())
def test_chosen_tasks_come_in_the_order_of_their_names_and_once(wiring: Any, data: Any) -> None:
    app = app_of(wiring)
    known = [task.name for task in plan.tasks(app)]
    assert len(set(known)) == len(known)
    chosen = data.draw(st.lists(st.sampled_from(known)))
    assert [task.name for task in plan.tasks(app, chosen)] == list(dict.fromkeys(chosen))


@given(wirings)
def test_who_has_a_table_has_one_of_dead_letters(wiring: Any) -> None:
    app = app_of(wiring)
    with_rows = any(Grade in (reads, *writes) for reads, writes in wiring)
    assert ("sink-plan_grade" in names(plan.tasks(app))) == with_rows
    assert (plan.DEAD_SINK in names(plan.tasks(app))) == with_rows


# --- what leads to what --------------------------------------------------------------------------


@given(wirings, st.data())
def test_upstream_is_all_that_leads_there(wiring: Any, data: Any) -> None:
    app = app_of(wiring)
    tasks = plan.tasks(app)
    chosen = data.draw(st.lists(st.sampled_from(tasks), min_size=1))
    found = names(plan.upstream(app, chosen))
    expected = names(chosen)
    for _ in tasks:
        expected |= {
            one.name
            for one in tasks
            if any(other.name in expected and other.reads in one.writes for other in tasks)
        }
    assert found == expected


@given(wirings)
def test_no_stage_waits_for_one_that_leads_back_to_it(wiring: Any) -> None:
    app = app_of(wiring)
    tasks = {task.name: task for task in plan.tasks(app)}
    waits_for = {name: names(plan.ahead(app, task)) for name, task in tasks.items()}
    for name, task in tasks.items():
        behind = names(plan.downstream(app, task))
        assert behind == {other.name for other in tasks.values() if other.reads in task.writes}
        assert waits_for[name] <= behind
        todo, reached = list(waits_for[name]), set(waits_for[name])
        while todo:
            more = waits_for[todo.pop()] - reached
            reached |= more
            todo += more
        assert name not in reached, "all of them would stand still for ever"


def test_a_stage_ahead_is_one_that_reads_what_is_written() -> None:
    app = app_of([(Photo, [Leaf]), (Leaf, [Photo, Grade]), (Word, [Photo])])
    first, second, third, sink, _ = plan.tasks(app)
    assert names(plan.downstream(app, first)) == {"s1"}
    assert plan.ahead(app, first) == [], "the two are a loop"
    assert plan.ahead(app, second) == [sink]
    assert plan.ahead(app, third) == [first]


# --- consumers -----------------------------------------------------------------------------------


@given(wirings, st.booleans())
def test_every_message_is_read_by_just_one_consumer_of_each_that_reads_its_type(
    wiring: Any, asked: bool
) -> None:
    app = app_of(wiring, asked=asked)
    for task in plan.tasks(app):
        if task.ordered or not task.declared:
            continue
        specs = plan.consumer_specs(app, task)
        for kind in app.messages:
            subjects = [app.subject(kind), app.subject(kind, bulk=True)]
            if kind.__mqinfer__.key:
                subjects += [f"{subject}.fern.1" for subject in subjects]
            for subject in subjects:
                found = [
                    spec.name
                    for spec in specs
                    if any(matches(pattern, subject) for pattern in spec.filters)
                ]
                bulk = subject.startswith(app.subject(kind, bulk=True))
                wanted = kind is task.reads and (not bulk or plan.bulk_consumer(app, task))
                assert len(found) == bool(wanted), (task.name, subject, found)
        if task.packs:
            found = [spec.name for spec in specs if pack_subject(app, Grade) in spec.filters]
            assert found == ["sink-plan_grade-packs"]


@given(wirings, st.booleans())
def test_consumers_and_streams_have_names_of_their_own(wiring: Any, asked: bool) -> None:
    app = app_of(wiring, asked=asked)
    specs = [spec for task in plan.tasks(app) for spec in plan.consumer_specs(app, task)]
    known = [(spec.stream, spec.name) for spec in specs]
    assert len(set(known)) == len(known)
    for _, name in known:
        assert not set(name) & set(".*> \t/\\"), "the server takes no such name"
    streams = plan.stream_specs(app)
    assert len({spec.name for spec in streams}) == len(streams)
    for spec in streams:  # the server refuses streams whose subjects overlap
        for other in streams:
            if other is not spec:
                assert not any(
                    matches(pattern, subject.replace(">", "x"))
                    for pattern in spec.subjects
                    for subject in other.subjects
                )


def test_an_ordered_type_has_a_consumer_for_each_partition_of_its_copy() -> None:
    app = app_of([(Seen, [])])
    (task,) = plan.tasks(app)
    specs = plan.consumer_specs(app, task)
    assert [(spec.name, spec.filters) for spec in specs] == [
        (f"s0-p{number}", (f"{number}.>",)) for number in range(3)
    ]
    copy = plan.copy_spec(app, Seen)
    assert {spec.stream for spec in specs} == {copy.name} == {"plan-ordered-seen"}
    assert copy.copies is not None
    assert copy.copies.transforms == (
        ("plan.seen", "0.plan.seen"),
        ("plan.seen.>", "{{partition(3)}}.plan.seen.>"),
    )


@pytest.mark.parametrize("max_age", ["1d", "7d"])
def test_dead_letters_outlive_the_messages(max_age: str) -> None:
    app = App("plan", max_age=max_age)
    lives = plan.stream_spec(app).max_age
    assert lives
    assert plan.dead_stream_spec(app).max_age == 4 * lives
