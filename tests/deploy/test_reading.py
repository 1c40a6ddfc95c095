"""A `deploy.toml` is read whole, or every error in it is told with its key and what to do."""

from pathlib import Path

import pytest

from mqinfer.deploy.reading import Misread, read
from mqinfer.errors import ConfigurationError
from tests.support.deploy_app import make

WRONG = """
imagee = "x:1"
image = 3
secrets = ["nats_pasword", "nats_token"]

[settings]
nats_url = "ftp://no:1"
nats_token = "hunter2"
grace = true
loop = "fast"

[settings.k8s]
blobz = "nats://"

[workers.A]
stages = ["grade", "grad"]
processes = "8..2"
target = "soon"
backlog = 0
colldown = "1m"
max_memory = "2 GX"

[workers.b]
stages = ["grade"]
processes = true
least = 1

[gateway]
port = 70000
replicas = "two"

[models.grader]
live = "newest"
best = 2

[triton]
gpus = -1

[console]
options = "--read-only"

[indexes.pictures]
parts = 3
dtype = "f8"
weights = { small = 1, none = -1 }

[indexes.picture]

[alerts]
failing = 3
labels = { team = 1 }
"""


def test_every_error_is_told_at_once_with_its_key(tmp_path: Path) -> None:
    file = tmp_path / "deploy.toml"
    file.write_text(WRONG)
    with pytest.raises(Misread) as error:
        read(file, make(shards=2), "local")
    said = error.value.problems
    for wanted in (
        "imagee is no key here: did you mean image?",
        "image = 3: is text in quotes",
        "secrets names 'nats_pasword', which is no setting: did you mean nats_password?",
        "settings.nats_url = 'ftp://no:1' is not allowed",
        'settings.nats_token is a secret: write secrets = ["nats_token"]',
        "settings.grace = True: is text or a number",
        "settings.loop = 'fast' is not allowed: it must be one of",
        "settings.k8s.blobz is no key here: did you mean blobs?",
        "workers.A is a name of small letters",
        "workers.A.stages names 'grad', which app deployed has not: did you mean grade?",
        "workers.A.processes = '8..2'",
        "workers.A.target = 'soon'",
        "workers.A.backlog = 0: is a whole number from 1",
        "workers.A.colldown is no key here: did you mean cooldown?",
        "workers.A.max_memory = '2 GX'",
        "workers.b.stages names 'grade', which workers.A runs: once only",
        'workers.b.processes = True: write 4, or "1..8"',
        'workers.b.least is said by processes: "1..8"',
        "workers run no keep, watch",
        "gateway.port = 70000: is a whole number from 1 to 65535",
        "gateway.replicas = 'two': is a whole number from 1",
        "models.grader.live = 'newest': is a version",
        "models.grader.best is an alias that nothing in the app follows; it has grader.live",
        "triton.gpus = -1",
        "console.options = '--read-only': is a list of texts",
        "indexes.pictures.parts = 3 is more than the 2 shards that they hold",
        "indexes.pictures.dtype = 'f8': is one of f32, bf16",
        "indexes.pictures.weights = {'small': 1, 'none': -1}: is a table of numbers of 0 or more",
        "indexes.picture is no index of app deployed: did you mean pictures?",
        "alerts.failing = 3: is a part of all",
        "alerts.labels = {'team': 1}: is a table of texts",
    ):
        assert any(one.startswith(wanted) for one in said), (wanted, said)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[workers", "it is no TOML"),
        ("image = 'x'", "workers is missing: [workers.all] with processes = 1"),
        ("workers = 3", "workers is a table: write [workers]"),
        (
            "[workers.o]\nstages = ['watch']\nprocesses = '1..5'\n[workers.rest]",
            "workers.o.processes = 5 is more than the 4 partitions",
        ),
        ("[workers.a]\n[workers.b]", "workers.b.stages is missing, as in workers.a"),
    ],
)
def test_a_single_error(tmp_path: Path, text: str, wanted: str) -> None:
    file = tmp_path / "deploy.toml"
    file.write_text(text)
    with pytest.raises(Misread) as error:
        read(file, make(), "local")
    assert any(one.startswith(wanted) for one in error.value.problems), error.value.problems


def test_what_containers_need_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "deploy.toml"
    file.write_text("[settings]\nnats_url = 'nats://localhost:4222'\n[workers.all]\n[console]\n")
    assert read(file, make(), "local").workers["all"].least == 1
    with pytest.raises(Misread) as error:
        read(file, make(), "k8s")
    starts = [one.split(" ")[0] for one in error.value.problems]
    assert starts == [
        "image",
        "settings.nats_url",
        "settings.triton_url",
        "settings.clickhouse_url",
        "settings.blobs",
        "console",
    ]


def test_an_index_that_nobody_holds_is_told(tmp_path: Path) -> None:
    file = tmp_path / "deploy.toml"
    file.write_text("[workers.all]\n")
    with pytest.raises(Misread, match=r"indexes\.pictures is missing: app deployed has that index"):
        read(file, make(shards=2), "local")
    file.write_text("[workers.all]\n[indexes.pictures.weights]\nsmall = 2\n")
    with pytest.raises(Misread, match=r"indexes\.pictures\.weights names 'small'; it has vector"):
        read(file, make(shards=2), "local")


def test_groups_settings_of_a_target_and_a_missing_file(tmp_path: Path) -> None:
    file = tmp_path / "deploy.toml"
    file.write_text(
        "[settings]\nblobs = 'nats://'\n[settings.compose]\nblobs = 's3://b'\n"
        "[workers.g]\nstages = ['grade']\nprocesses = '1..8'\ntarget = '1m'\n[workers.rest]\n"
        "[models.grader]\nlive = 2\n[triton]\n"
    )
    found = read(file, make(), "local")
    assert found.settings == {"blobs": "nats://"}
    assert found.triton is None
    assert found.models == {"grader@live": "2"}
    assert (found.workers["g"].least, found.workers["g"].most) == (1, 8)
    assert found.workers["g"].target == 60
    assert "grade" not in found.workers["rest"].stages
    assert {"keep", "watch"} <= set(found.workers["rest"].stages)
    with pytest.raises(ConfigurationError, match=r"there is no .*none.toml: docs/deploy.md"):
        read(tmp_path / "none.toml", make(), "local")
