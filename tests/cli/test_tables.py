"""`mqinfer tables`: for people and for programs, before and after there are rows."""

from tests.support.cli import Shell


def test_tables_are_told(served: Shell) -> None:
    name = f"length_{served.name}"
    code, out, _ = served.run("tables", served.app)
    assert code == 0
    assert f"{name}  " in out
    assert "not made yet" in out
    lines = served.folder / "words.jsonl"
    lines.write_text('{"text": "a"}\n{"text": "bb"}\n')
    assert served.run("publish", served.app, "word", str(lines))[0] == 0
    served.drain("measure", f"sink-{name}")
    found = {one["table"]: one for one in served.json("tables", served.app, "--older-than", "1d")}
    told = found[name]
    assert (told["exists"], told["by_days"], told["rows"], told["no_birth"]) == (True, True, 2, 0)
    assert told["oldest"] <= told["newest"]
    assert told["old_rows"] == 0
    code, out, _ = served.run("tables", served.app, "--older-than", "90d")
    assert code == 0
    assert told["oldest"] in out
    assert "their rows" in out
    code, _, err = served.run("tables", served.app, "--migrate")
    assert (code, f"{name}: lay by days before" in err) == (0, True)
    code, _, err = served.run("tables", served.app, "--older-than", "soon")
    assert (code, "is no duration" in err) == (2, True)


def test_a_server_that_is_away_is_said(shell: Shell) -> None:
    code, _, err = shell.run("tables", shell.app)
    assert code == 1
    assert "ClickHouse" in err
