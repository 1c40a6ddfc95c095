"""A shard: what is near, what is alive, what a snapshot keeps; nothing but memory."""

from __future__ import annotations

import numpy as np
import pytest

from mqinfer.errors import DecodeError, SearchError
from mqinfer.index import Parameters
from mqinfer.search import layout, rows, vectors
from mqinfer.search.shard import Shard
from tests.search.support import DIMENSIONS, Floats, clustered, exact

GRAPH = Parameters(exact_below=300, expansion_search=96)


def filled(found: Floats, parameters: Parameters = GRAPH) -> Shard:
    shard = Shard(parameters, ("even",))
    for n, one in enumerate(found):
        shard.add(f"p{n}", n, one, (n % 2 == 0,))
    return shard


def renewed(shard: Shard) -> None:
    renewal = shard.renewal()
    assert renewal is not None
    shard.renew(renewal, renewal.made())


def queries(found: Floats) -> Floats:
    return np.vstack([vectors.read(one, "cosine", None) for one in found])


def recall(shard: Shard, found: Floats, asked: Floats, k: int = 10) -> float:
    hits = shard.search(queries(asked), k, {})
    same = [
        len({hit.key for hit in some} & {f"p{n}" for n in exact(found, one, k)})
        for some, one in zip(hits, asked, strict=True)
    ]
    return sum(same) / (k * len(asked))


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16", "i8"])
def test_a_graph_finds_nearly_all_that_looking_at_each_vector_does(dtype: str) -> None:
    found, asked = clustered(2000), clustered(60, seed=1)
    shard = filled(found, Parameters(exact_below=300, expansion_search=96, dtype=dtype))  # type: ignore[arg-type]
    assert recall(shard, found, asked) == 1.0
    renewed(shard)
    assert shard.rows is not None
    assert shard.rows.frozen == 2000
    assert recall(shard, found, asked) >= (0.9 if dtype == "i8" else 0.98)


def test_a_graph_is_built_block_by_block_and_has_every_vector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rows, "_BLOCK", 128)
    found = clustered(1300)
    shard = filled(found[:900])
    renewed(shard)
    shard.remove("p200", 2000)
    for n in range(900, 1300):
        shard.add(f"p{n}", n, found[n], (n % 2 == 0,))
    renewed(shard)  # of an older graph and a tail
    assert shard.rows is not None
    assert (shard.rows.frozen, shard.rows.graph and len(shard.rows.graph)) == (1299, 1299)
    nearest = shard.search(queries(found), 1, {})
    own = [some[0].key == f"p{n}" for n, some in enumerate(nearest)]
    assert [n for n, same in enumerate(own) if not same] == [200]


def test_the_newest_vector_of_a_key_counts_whatever_the_order_and_however_often() -> None:
    found = clustered(900)
    shard = filled(found)
    renewal = shard.renewal()
    assert renewal is not None
    made = renewal.made()
    # Meanwhile: a key moves, one is taken out, one is new, and old news come again.
    assert shard.add("p1", 1000, found[0], (True,))
    assert shard.remove("p2", 1001)
    assert shard.add("new", 1002, found[2], (True,))
    assert not shard.add("p1", 999, found[1], (True,))
    assert not shard.add("p2", 2, found[2], (True,))
    assert not shard.remove("new", 1002)
    for held in (False, True):
        if held:
            shard.renew(renewal, made)
        assert len(shard) == 900
        near = shard.search(queries(found[:3]), 900, {})
        assert [len(some) for some in near] == [900] * 3
        assert {hit.key for hit in near[0][:2]} == {"p0", "p1"}
        assert near[2][0].key == "new"
        assert "p2" not in {hit.key for hit in near[2]}
    shard.forget(1001)
    assert not shard.gone


def test_filters_find_all_that_they_let_through_however_few() -> None:
    found = clustered(1500)
    shard = filled(found)
    renewed(shard)
    for n in range(1000, 1500):  # most of the nearest may be gone
        shard.remove(f"p{n}", 5000 + n)
    for conditions, count in (([("eq", True)], 500), ([("ne", True)], 500), ([("eq", 7)], 0)):
        (hits,) = shard.search(queries(found[:1]), 1000, {"even": conditions})
        assert len(hits) == count
    for n in range(3, 1000):
        shard.remove(f"p{n}", 9000 + n)
    (hits,) = shard.search(queries(found[900:901]), 10, {})
    assert {hit.key for hit in hits} == {"p0", "p1", "p2"}


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_scores_are_those_of_the_metric_in_a_graph_and_beside_it(metric: str) -> None:
    found, asked = clustered(700), clustered(3, seed=2)
    shard = filled(found, Parameters(metric, "f32", 300))  # type: ignore[arg-type]
    dots = asked @ found.T
    wanted = {
        "ip": dots,
        "l2": -((asked[:, None, :] - found[None, :, :]) ** 2).sum(axis=2),
        "cosine": dots
        / np.linalg.norm(asked, axis=1)[:, None]
        / np.linalg.norm(found, axis=1)[None, :],
    }[metric]
    own = np.vstack([vectors.read(one, shard.parameters.metric, None) for one in asked])
    for held in (False, True):
        if held:
            renewed(shard)
        for row, hits in enumerate(shard.search(own, 700, {})):
            got = {hit.key: hit.score for hit in hits}
            assert np.allclose([got[f"p{n}"] for n in range(700)], wanted[row], atol=2e-3)
        some = shard.scores(own[0], ["p3", "p5", "none"])
        assert some == pytest.approx({f"p{n}": wanted[0][n] for n in (3, 5)}, abs=2e-3)


def test_a_snapshot_is_the_shard_again_and_what_is_none_is_refused() -> None:
    found = clustered(800)
    shard = filled(found)
    renewed(shard)
    shard.add("late", 900, found[5], (False,))
    shard.remove("p7", 901)
    with pytest.raises(SearchError, match="all zeros"):
        shard.add("zeros", 902, np.zeros(DIMENSIONS), (True,))
    made = layout.Snapshot(shard.rows, shard.gone, shard.refused, 450, "then")
    shard.add("later", 903, found[5], (False,))  # is no part of it
    data = b"".join(made.pieces())
    head, rows, gone, refused = layout.read(data, GRAPH, ("even",))
    again = Shard(GRAPH, ("even",))
    again.restore(rows, gone, refused)
    assert (head.sequence, head.created, len(again)) == (450, "then", 800)
    assert again.gone == {"p7": 901}
    assert list(again.refused) == ["zeros"]
    assert again.lacking(["late", "later", "p7"]) == ["later", "p7"]
    shard.remove("later", 904)
    assert again.search(queries(found[:9]), 10, {}) == shard.search(queries(found[:9]), 10, {})
    assert not again.add("p3", 3, found[0], (True,))  # the stream again, from before
    for bad, text in ((data[:-1], "cut off"), (b"mqix" + b"\x09" + data[5:], "layout 9")):
        with pytest.raises(DecodeError, match=text):
            layout.read(bad, GRAPH, ("even",))
    with pytest.raises(DecodeError, match="other columns"):
        layout.read(data, GRAPH, ("even", "day"))
