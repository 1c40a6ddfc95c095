"""Reading a `models.toml`: what it says, and every mistake in one line with its place."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from mqinfer.catalog.reading import Entry, read, type_name
from mqinfer.errors import ConfigurationError
from tests.catalog import support

GOOD = 'app = "a"\n[models.iris]\nclass = "iris:Iris"\n'


def refused(tmp_path: Path, text: str) -> str:
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as error:
        read(path)
    said = str(error.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    return said.removeprefix(str(path)).lstrip(": ")


def test_it_says_what_it_says(tmp_path: Path) -> None:
    found = read(support.write(tmp_path))
    assert (found.app, found.folder) == ("numbers", tmp_path)
    assert found.repository == tmp_path / "triton_models"
    assert list(found.entries) == ["double", "join-words"]
    double, join = found.entries.values()
    assert (double.model_class, double.rejects, double.attempts) == (
        "classes:Double", ["ValueError"], 1,
    )  # fmt: skip
    assert (double.endpoint, join.endpoint, join.deadline, join.keep) == (None, "join", "1m", 60)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("app = ", "is no TOML"),
        ("[models.a]\nclass = 'a:A'", "app is missing"),
        ("app = 'a'", "models is missing"),
        ("app = 'a'\n[models]", "lists no model"),
        ("app = 'a'\nmodels = 3", "models: Expected `object`, got `int`"),
        ("app = 'a'\n[models]\niris = 'iris:Iris'", "models.iris is no table: [models.iris]"),
        ("app = 'a'\nrepo = 'x'\n[models.a]\nclass = 'a:A'", "repo: there is no such key; "),
        (GOOD + "requirments = []", "models.iris.requirments: there is no such key; did you mean "
         "'requirements'?"),
        (GOOD + "max_batch = 'ten'", "models.iris.max_batch: Expected `int`, got `str`"),
        (GOOD + "max_batch = 0", "models.iris.max_batch: Expected `int` >= 1"),
        (GOOD + "requirements = [1]", "models.iris.requirements[0]: Expected `str`, got `int`"),
        ("app = 'a'\n[models.iris]\npython = '3.12'", "models.iris.class is missing"),
        ("app = 'a'\n[models.iris]\nclass = 'iris'", "models.iris: class = 'iris' is no "
         "'module:Class'"),
        (GOOD + "[models.iris]\nclass = 'b:B'", "there are two models of the name 'iris' (at line "
         "4, column 13); give one another name"),
        (GOOD + "[models.'a b']\nclass = 'b:B'", "models.a b: a name is letters, digits, - and _"),
        (GOOD + "[models.Iris]\nclass = 'b:B'", "models 'iris' and 'Iris' have types of one name, "
         "'Iris'; rename one"),
        (GOOD + "[models.b]\nclass = 'b:B'\nendpoint = 'iris'", "models 'iris' and 'b' have an "
         "endpoint of one name, 'iris'; rename one"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"models.toml cannot be read: .*No such file"):
        read(tmp_path / "models.toml")


@pytest.mark.parametrize(
    ("model", "name"),
    [("iris", "Iris"), ("iris-old_2", "IrisOld2"), ("leafNet", "LeafNet"), ("2nd", "Model2nd")],
)
def test_types_are_called_by_their_models(model: str, name: str) -> None:
    assert type_name(model) == name


def test_the_file_of_the_page_is_one(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "models.md"
    (text,) = re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    path = tmp_path / "models.toml"
    path.write_text(text)
    found = read(path)
    assert list(found.entries) == ["iris", "oddity"]
    table = page.read_text().partition("| key of a model")[2].partition("\n\n")[0]
    told = set(re.findall(r"`(\w+)`(?=[ ,]| \()", "\n".join(
        line.split("|")[1] for line in table.splitlines()[2:]
    )))  # fmt: skip
    assert told == {one.encode_name for one in msgspec.structs.fields(Entry)}
