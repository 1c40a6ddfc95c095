"""Reading: a `models.toml` as what it says, or one line about what is wrong in it and where.

app = "flowers"                          # the name of the stream
repository = "triton_models"             # beside this file, unless said otherwise

[models.iris]
class = "iris:Iris"                      # a module beside this file, and a class in it
requirements = ["scikit-learn==1.7.2"]   # of this model alone
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from mqinfer.errors import ConfigurationError

# As stages, subjects and endpoints may be called.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
_TWICE = re.compile(r"Cannot declare \('models', '(?P<name>[^']*)'\) twice \((?P<place>[^)]*)\)")
_PLACE = re.compile(r" - at `\$\.(?P<key>[^`]*)`$")
_MISSING = re.compile(r"Object missing required field `(?P<key>[^`]*)`")
Duration = str | Annotated[float, Meta(gt=0)]

S = TypeVar("S", bound=Struct)


class Entry(Struct, frozen=True, kw_only=True, rename={"model_class": "class"}):
    """A model class as it is listed.

    Attributes:
        model_class: `module:Class`, or `path/to/file.py:Class`, from the folder of the file.
        requirements: what pip installs for it alone.
        python: a version, or the path of a Python that is taken as it is without requirements;
            "here" is the one that packs.
        files: what `load` finds in its folder.
        source: more modules and packages that it imports.
        rejects: names of the exceptions, beside `Reject`, by which it says that what was asked can
            never be answered: their text reaches whoever asked, and no attempt follows.
        max_batch: the most items of one run.
        endpoint: the name of its endpoint; None is the model's.
        deadline: of a request.
        keep: of an answer.
        timeout: of one item, outages not counted.
        attempts: that may fail before an item is given up.
    """

    model_class: str
    requirements: list[str] = field(default_factory=list)
    python: str | None = None
    files: list[str] = field(default_factory=list)
    source: list[str] = field(default_factory=list)
    rejects: list[str] = field(default_factory=list)
    max_batch: Annotated[int, Meta(ge=1)] = 32
    endpoint: str | None = None
    deadline: Duration = "5m"
    keep: Duration = "24h"
    timeout: Duration = "1m"
    attempts: Annotated[int, Meta(ge=1)] = 3


class _File(Struct, frozen=True, kw_only=True):
    app: str
    models: dict[str, Any]
    repository: str = "triton_models"
    max_age: Duration = "7d"
    replicas: int = 1


class Catalog(Struct, frozen=True):
    """All that a file says.

    Attributes:
        file: where it was read.
        app: the name of the app.
        repository: Triton's model repository.
        entries: the model classes by the name of the model.
        max_age: of the app's messages.
        replicas: of its stream.
    """

    file: Path
    app: str
    repository: Path
    entries: dict[str, Entry]
    max_age: str | float
    replicas: int

    @property
    def folder(self) -> Path:
        """From which its paths go."""
        return self.file.parent


def read(path: Path | str) -> Catalog:
    """What a file says.

    Raises:
        ConfigurationError: it cannot be read, or what is wrong in it, and where.
    """
    file = Path(path).absolute()
    try:
        said = tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        if twice := _TWICE.search(str(error)):
            told = f"there are two models of the name {twice['name']!r} ({twice['place']})"
            raise ConfigurationError(f"{path}: {told}; give one another name") from None
        raise ConfigurationError(f"{path} is no TOML: {error}") from None
    top = _made(_File, said, f"{path}: ")
    if not top.models:
        raise ConfigurationError(f"{path} lists no model: [models.NAME], class = 'module:Class'")
    entries: dict[str, Entry] = {}
    for name, one in top.models.items():
        where = f"{path}: models.{name}"
        if not isinstance(one, dict):
            raise ConfigurationError(f"{where} is no table: [models.{name}], and its keys below it")
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"{where}: a name is letters, digits, - and _, at most 40")
        entry = entries[name] = _made(Entry, one, f"{where}.")
        module, _, kind = entry.model_class.rpartition(":")
        if not (module and kind):
            raise ConfigurationError(
                f"{where}: class = {entry.model_class!r} is no 'module:Class', such as 'iris:Iris'"
            )
    for what, names in (
        ("types", {name: type_name(name) for name in entries}),
        ("an endpoint", {name: entry.endpoint or name for name, entry in entries.items()}),
    ):
        _require_distinct(str(path), what, names)
    repository = file.parent / top.repository
    return Catalog(file, top.app, repository, entries, top.max_age, top.replicas)


def type_name(model: str) -> str:
    """The name of the type of what is asked of a model: `iris-old` has `IrisOld`."""
    words = re.split(r"[-_]+", model)
    found = "".join(word[:1].upper() + word[1:] for word in words)
    return found if found.isidentifier() else f"Model{found}"


def _made(kind: type[S], said: dict[str, Any], where: str) -> S:
    known = [one.encode_name for one in msgspec.structs.fields(kind)]
    for key in said:
        if key not in known:
            raise ConfigurationError(f"{where}{key}: there is no such key{_meant(key, known)}")
    try:
        return msgspec.convert(said, kind)
    except msgspec.ValidationError as error:
        text = str(error)
        if missing := _MISSING.fullmatch(text):
            raise ConfigurationError(f"{where}{missing['key']} is missing") from None
        place = _PLACE.search(text)
        told = f"{place['key']}: {text[: place.start()]}" if place else text
        raise ConfigurationError(f"{where}{told}") from None


def _meant(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"


def _require_distinct(path: str, what: str, names: dict[str, str]) -> None:
    seen: dict[str, str] = {}
    for model, name in names.items():
        if name in seen:
            raise ConfigurationError(
                f"{path}: models {seen[name]!r} and {model!r} have {what} of one name, {name!r}; "
                "rename one"
            )
        seen[name] = model
