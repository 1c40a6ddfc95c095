"""Help, exit codes, errors in one line, and how `APP` is found."""

import subprocess
import sys

import pytest

from mqinfer.cli import main
from mqinfer.cli.errors import ExitCode, report
from mqinfer.cli.load import load_app
from mqinfer.errors import ConfigurationError, Unavailable
from tests.support.cli import Shell, command

HEAVY = (
    *("nats", "tritonclient", "grpc", "clickhouse_connect", "numpy", "cv2", "rich", "uvicorn"),
    *("structlog", "mqinfer.app", "mqinfer.cli.processes"),
)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from mqinfer.cli import main; main(['--help']);"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "mqinfer worker app:app" in done.stdout
    assert "Exit codes" in done.stdout


@pytest.mark.parametrize(
    "name", ["up", "worker", "publish", "status", "check", "graph", "settings", "dead list"]
)
def test_help_teaches_by_example(name: str, shell: Shell) -> None:
    code, out, _ = shell.run(*name.split(), "--help")
    assert code == ExitCode.DONE
    assert f"  mqinfer {name}" in out
    assert "\\b" not in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["wrker"], "No such command 'wrker'"),
        (["worker"], "Missing argument 'APP'"),
        (["worker", "a:b", "--processes", "0"], "--processes"),
        (["publish", "a:b", "word", "--nope"], "No such option"),
        (["dead", "list", "{app}", "--since", "soon"], "'soon' is no time"),
        (["dead", "list", "{app}", "--seq", "x"], "'x' is no sequence"),
        (["dead", "list", "{app}", "--kind", "x"], "no kind of dead letter is called x"),
        (["dead", "drop", "{app}"], "--all"),
        (["worker", "{app}", "--stage", "nope"], "no stage nope; it has measure"),
        (["worker", "{app}", "--nats-url", "http://x"], "MQINFER_NATS_URL"),
        (["publish", "{app}", "nope"], "no subject 'nope'; it has word"),
        (["publish", "{app}", "word", "nope.jsonl"], "nope.jsonl: there is no such file"),
        (["publish", "{app}", "word", "--id-field", "nope"], "has no field 'nope'"),
        (["up", "--models", "nope", "--dir", "d"], "--models nope: there is no such folder"),
    ],
)
def test_usage_errors_are_one_line_and_code_2(
    arguments: list[str], says: str, shell: Shell
) -> None:
    code, _, err = shell.run(*(argument.format(app=shell.app) for argument in arguments))
    assert code == ExitCode.USAGE
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert says in err


def test_no_command_shows_help(shell: Shell) -> None:
    code, out, err = shell.run()
    assert code == ExitCode.USAGE
    assert "Usage:" in out + err


def test_version(shell: Shell) -> None:
    code, out, _ = shell.run("--version")
    assert (code, out.split()[0]) == (0, "mqinfer")


@pytest.mark.parametrize("name", ["status", "publish", "dead"])
def test_a_server_that_does_not_answer_is_one_line_and_code_1(name: str, shell: Shell) -> None:
    (shell.folder / "x.jsonl").write_text("{}")
    arguments = {
        "status": ["status", shell.app],
        "publish": ["publish", shell.app, "word", "x.jsonl"],
        "dead": ["dead", "list", shell.app],
    }
    code, _, err = shell.run(*arguments[name])
    assert code == ExitCode.FAILED
    assert err.count("\n") == 1
    assert "127.0.0.1:1" in err


# --- errors -------------------------------------------------------------------------------------


def test_groups_are_unwrapped_and_repeats_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    down = Unavailable("NATS is\nnot there")
    group = ExceptionGroup("a", [down, ExceptionGroup("b", [Unavailable("NATS is not there")])])
    assert report(group, debug=False) == ExitCode.FAILED
    assert capsys.readouterr().err == "error: NATS is not there\n"


def test_only_configuration_errors_are_code_2() -> None:
    wrong = ConfigurationError("x")
    assert report(wrong, debug=False) == ExitCode.USAGE
    assert report(ExceptionGroup("a", [wrong]), debug=False) == ExitCode.USAGE
    assert report(ExceptionGroup("a", [wrong, Unavailable("y")]), debug=False) == ExitCode.FAILED


def test_a_bug_shows_its_traceback_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    def bug() -> Exception:
        try:
            raise KeyError("x")
        except KeyError as error:
            return error

    assert report(bug(), debug=False) == ExitCode.FAILED
    err = capsys.readouterr().err
    assert "KeyError" in err
    assert "--debug" in err
    assert "Traceback" not in err
    report(bug(), debug=True)
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_130_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(KeyboardInterrupt(), debug=False) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err == ""


def test_a_closed_pipe_is_no_traceback() -> None:
    done = subprocess.run(
        f"'{sys.executable}' -m mqinfer settings | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


# --- APP ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "module:attribute"),
        ("nowhere.at.all:app", "no module 'nowhere'"),
        ("{module}", "did you mean {module}:app?"),
        ("{module}:", "module:attribute"),
        ("{module}:nope", "no attribute 'nope'; did you mean {module}:app?"),
        ("{module}:Word", "is a MessageMeta, not an mqinfer.App"),
        ("./some/{module}.py:app", "some.{module}:app"),
    ],
)
def test_what_is_no_app(name: str, says: str, shell: Shell) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load_app(name.format(module=shell.name))
    assert says.format(module=shell.name) in str(raised.value)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("\n1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (
            "from mqinfer import Message\nclass A(Message, ordered=True): x: int",
            "WiringError: A: ordered=True needs key=",
        ),
    ],
)
def test_a_module_that_cannot_be_imported(source: str, says: str, shell: Shell) -> None:
    name = shell.write(source)
    code, _, err = shell.run("graph", name)
    assert code == ExitCode.USAGE
    assert err.count("\n") == 1
    assert says in err
    assert ".py" in err


def test_an_app_in_a_package_and_an_attribute(shell: Shell) -> None:
    package = shell.folder / f"package_{shell.name}"
    package.mkdir()
    (package / "inner.py").write_text(
        "from mqinfer import App\nclass Apps:\n    one = App('one')\n"
    )
    assert load_app(f"package_{shell.name}.inner:Apps.one").name == "one"


def test_settings_are_listed(shell: Shell) -> None:
    rows = shell.json("settings")
    assert {"env", "type", "default", "meaning"} == set(rows[0])
    _, out, _ = shell.run("settings")
    assert all(row["env"] in out for row in rows)


@pytest.mark.usefixtures("executed")
def test_module_runs() -> None:
    done = subprocess.run(command("--version"), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("mqinfer ")


def test_debug_anywhere(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQINFER_DEBUG", "")
    _, _, err = shell.run("graph", "nowhere:app", "--debug")
    assert "Traceback" in err


def test_main_reads_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["mqinfer", "--version"])
    assert main() == ExitCode.DONE
