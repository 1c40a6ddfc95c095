"""Call sites: where a handler's code calls a model, and with which input names. Pure; reads source.

What is found is certain; what is not found is not judged: a model that comes out of a function, or
inputs passed as `**inputs`, are only seen when they run.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mqinfer.model import Model
from mqinfer.referred import referred


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call in the source.

    Attributes:
        models: that it may be a call of (several for a container of models).
        keywords: the input names.
        positional: whether there are arguments without a name.
        open: whether more inputs may come from `**`.
        place: file and line.
        streamed: whether it takes the answer in parts, `model.stream(...)`.
    """

    models: tuple[Model, ...]
    keywords: tuple[str, ...]
    positional: bool
    open: bool
    place: str
    streamed: bool = False


def model_calls(handler: Callable[..., Any]) -> Iterator[ModelCall]:
    """The calls of models in a handler, and in functions of its own module that it uses."""
    seen: set[Any] = set()
    todo: list[Any] = [inspect.unwrap(handler)]
    while todo:
        function = todo.pop()
        code = getattr(function, "__code__", None)
        if code is None or code in seen:
            continue
        seen.add(code)
        try:
            lines, first = inspect.getsourcelines(function)
            tree = ast.parse(textwrap.dedent("".join(lines)))
        except (OSError, TypeError, SyntaxError, ValueError):
            continue  # no source to look at: the server checks each call anyway
        names = referred(function)
        todo += [
            value
            for value in names.values()
            if inspect.isfunction(value) and value.__module__ == function.__module__
        ]
        file = Path(code.co_filename).name
        yield from _calls_in(tree, names, lambda line: f"{file}:{first + line - 1}")  # noqa: B023


def _calls_in(
    tree: ast.AST, names: Mapping[str, Any], place: Callable[[int], str]
) -> Iterator[ModelCall]:
    local = _local_models(tree, names)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        streamed = isinstance(called, ast.Attribute) and called.attr == "stream"
        if isinstance(called, ast.Attribute) and streamed:
            called = called.value
        models = tuple(dict.fromkeys(_models(called, names, local)))
        if models:
            yield ModelCall(
                models=models,
                keywords=tuple(k.arg for k in node.keywords if k.arg is not None),
                positional=bool(node.args),
                open=any(keyword.arg is None for keyword in node.keywords),
                place=place(node.lineno),
                streamed=streamed,
            )


def _local_models(tree: ast.AST, names: Mapping[str, Any]) -> dict[str, list[Model]]:
    """Local names that stand for models: `grader = graders[x]`, `for grader in graders`."""
    local: dict[str, list[Model]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
            target, value = node.target, node.iter
        else:
            continue
        found = list(_models(value, names, local, inside=True))
        if not found:
            continue
        # In `for name, model in models.items()` any name of the target may be the model; only one
        # that is called matters.
        for part in ast.walk(target):
            if isinstance(part, ast.Name):
                local.setdefault(part.id, []).extend(found)
    return local


def _models(
    node: ast.expr,
    names: Mapping[str, Any],
    local: Mapping[str, list[Model]],
    *,
    inside: bool = False,
) -> Iterator[Model]:
    """The models that an expression may be; with `inside`, also those in a container it is."""
    if isinstance(node, ast.Name) and node.id in local and node.id not in names:
        yield from local[node.id]
        return
    if isinstance(node, ast.Subscript):
        yield from _models(node.value, names, local, inside=True)
        return
    if inside and isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in ("values", "items", "get"):
            yield from _models(node.func.value, names, local, inside=True)
        return
    value = _value(node, names)
    if isinstance(value, Model):
        yield value
    elif inside and isinstance(value, (list, tuple, dict)):
        items = value.values() if isinstance(value, dict) else value
        yield from (item for item in items if isinstance(item, Model))


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """The object that a name, or a chain of attributes of modules, stands for."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _value(node.value, names)
        # Plain look-ups only: nothing of the user's runs here.
        return vars(owner).get(node.attr) if hasattr(owner, "__dict__") else None
    return None
