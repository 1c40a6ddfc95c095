"""`mqinfer models pack`: a folder for Triton out of a model as people have it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mqinfer.cli import options
from mqinfer.cli.output import print_json
from mqinfer.errors import ConfigurationError

if TYPE_CHECKING:
    from mqinfer.packed.kinds import Kind, Onnx
    from mqinfer.packed.schema import Schema

_TORCH = (".pt", ".pth", ".ts", ".torchscript")


def pack(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="module:Class, file.py:Class, an .onnx file, a TorchScript file, a folder of "
            "MLflow; or a models.toml, which lists classes and says all else.",
        ),
    ],
    *,
    to: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The model's folder, such as triton_models/iris."),
    ] = None,
    requirements: Annotated[
        list[str] | None,
        typer.Option(
            "--requirements",
            "-r",
            metavar="LINE|FILE",
            help="What pip installs for the model alone; repeatable.",
        ),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="What `load` finds in its folder; repeatable."),
    ] = None,
    source: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="A module or package that it imports; repeatable."),
    ] = None,
    input: Annotated[  # noqa: A002 - the flag's name
        list[str] | None,
        typer.Option(metavar="NAME:DTYPE:SIDES", help="Of one item; repeatable, with --output."),
    ] = None,
    output: Annotated[list[str] | None, typer.Option(metavar="NAME:DTYPE:SIDES")] = None,
    rejects: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="An exception by which, as by Reject, a class says that an item can never be "
            "answered; repeatable.",
        ),
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION|PATH|here",
            help="A version; or a Python that is there, taken as it is without --requirements: "
            "`here` is the one that runs this command.",
        ),
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="The most items of one run [default: 32]."),
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of the model [default: the next].")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the version, and the configuration.")
    ] = False,
    no_env: Annotated[
        bool, typer.Option("--no-env", help="Leave it to the server to make the environment.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    r"""Write a version of a model into a Triton repository, from where `mqinfer up` serves it.

    A class, a TorchScript file and a model of MLflow run in a process of their own, with a Python
    and packages of their own, so that models with conflicting libraries serve side by side. The
    environment is made, and the model loaded once, before anything is written.

    \b
      class Iris:
          inputs = {"x": Tensor("float32", (4,))}        of one item
          outputs = {"label": Tensor("int64", ())}
          def load(self, folder): ...                     what --file named lies there
          def predict(self, x): ...                       x has the batch before it: (items, 4)

    Of a models.toml each model is packed that is not there as the file has it, with what runs it.

    \b
      mqinfer models pack iris:Iris --to triton_models/iris -r scikit-learn==1.4.2 --file m.joblib
      mqinfer models pack model.onnx --to triton_models/leaves
      mqinfer models pack model.pt --to triton_models/net --input x:float32:4 --output y:float32:3
      mqinfer models pack mlruns/0/.../artifacts/model --to triton_models/wine
      mqinfer models pack models.toml
    """
    if model.endswith(".toml"):
        told_here = (to, requirements, file, source, input, output, rejects, python, version, force)
        if any(told_here) or max_batch is not None:
            raise ConfigurationError(f"{model} says all of that itself: change it there")
        _pack_all(model, environment=not no_env, as_json=as_json)
        return
    if to is None:
        raise ConfigurationError("--to is missing: the model's folder, such as triton_models/iris")
    from mqinfer.packed.pack import Place
    from mqinfer.packed.pack import pack as put
    from mqinfer.packed.schema import told

    schema = told(input or (), output or ())
    found = _kind(model, schema, tuple(file or ()), tuple(source or ()), tuple(rejects or ()))
    place = Place(
        to=to,
        version=version,
        force=force,
        max_batch=max_batch or 32,
        requirements=_lines(requirements or ()),
        python=python,
        environment=not no_env,
    )
    packed = put(found, place, (lambda _: None) if as_json else print)
    if as_json:
        print_json(
            {
                "model": packed.name,
                "version": packed.version,
                "folder": str(packed.folder),
                "schema": packed.schema,
            }
        )
    else:
        print(f"packed {packed.name} version {packed.version}: {packed.folder}")


def _pack_all(path: str, *, environment: bool, as_json: bool) -> None:
    from mqinfer.catalog.packing import pack_all
    from mqinfer.catalog.reading import read

    say: Callable[[str], None] = (lambda _: None) if as_json else print
    done = pack_all(read(path), environment=environment, say=say)
    if as_json:
        print_json(
            [
                {
                    "model": one.model,
                    "version": one.folder.name,
                    "folder": str(one.folder),
                    "written": one.written,
                }
                for one in done
            ]
        )
        return
    for one in done:
        what = "packed" if one.written else "unchanged:"
        print(f"{what} {one.model} version {one.folder.name}: {one.folder}")


def _kind(
    model: str,
    schema: Schema | None,
    files: tuple[Path, ...],
    sources: tuple[Path, ...],
    rejects: tuple[str, ...],
) -> Kind | Onnx:
    from mqinfer.packed import kinds, mlflow

    path = Path(model)
    for option, given in (("--source", sources), ("--rejects", rejects)):
        if given and ":" not in model:
            raise ConfigurationError(f"{option} goes with a class: module:Class")
    if path.suffix == ".onnx" and path.is_file():
        if schema is not None:
            raise ConfigurationError("an ONNX file says its inputs and outputs itself")
        return kinds.Onnx(path, files)
    if path.suffix in _TORCH and path.is_file():
        return kinds.TorchScript(path, schema)
    if path.is_dir():
        if not (path / "MLmodel").exists():
            raise ConfigurationError(f"{model} is a folder without MLmodel, so none of MLflow")
        return mlflow.read(path, schema)
    if ":" in model:
        return kinds.PythonClass(model, schema, files, sources, rejects=rejects)
    raise ConfigurationError(
        f"{model!r} is no module:Class, file.py:Class, .onnx file, TorchScript file "
        f"({', '.join(_TORCH)}) or folder of MLflow that is there"
    )


def _lines(given: tuple[str, ...] | list[str]) -> list[str]:
    """Requirements as they were said, those of files line by line."""
    found = []
    for one in given:
        path = Path(one)
        if not path.is_file():
            found.append(one)
            continue
        lines = (line.partition(" #")[0].strip() for line in path.read_text().splitlines())
        found += [line for line in lines if line and not line.startswith("#")]
    return found
