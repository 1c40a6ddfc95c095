"""Mistakes: what newcomers do wrong, and what the line that tells them has to say."""

from __future__ import annotations

from tests.firsthour.desk import ROW, Mistake
from tests.firsthour.models import MODELS
from tests.firsthour.tables import TABLES

CHECK = "check {name}:app --offline"
PUBLISH = "publish {name}:app word words.jsonl"
WORK = "worker {name}:app --drain --no-wait --stage measure"
LETTERS = "dead list {name}:app"
HANDLED = (PUBLISH, WORK, LETTERS)
WORDS = {"words.jsonl": '{"text": "petal"}\n'}
NOBODY = "127.0.0.1:1"  # where nobody listens
RETURN = "return Length(word.text, len(word.text))"
HANDLER = "async def measure(word: Word) -> Length:"
MODULE = 'app = App("{name}")'

DECLARED = (
    Mistake(
        name="The module of APP is misspelt",
        run=("check wrods:app",),
        says=("no module 'wrods' in", "run mqinfer in the folder that holds it"),
    ),
    Mistake(
        name="The app's name in the module is misspelt",
        run=("check {name}:ap",),
        says=("has no attribute 'ap'", "did you mean words:app?"),
    ),
    Mistake(
        name="A path instead of a module",
        run=("worker ./{name}.py",),
        says=("APP is module:attribute with dots: words:app",),
    ),
    Mistake(
        name="A command is misspelt",
        run=("wroker {name}:app",),
        says=("No such command 'wroker'", "Did you mean 'worker'?"),
    ),
    Mistake(
        name="An option is misspelt",
        run=("worker {name}:app --proceses 2",),
        says=("No such option: --proceses", "--processes"),
    ),
    Mistake(
        name="A stage is misspelt on the command line",
        run=("worker {name}:app --stage mesure",),
        says=("has no stage mesure; it has measure",),
    ),
    Mistake(
        name="A type is misspelt in an annotation",
        run=(CHECK,),
        edits=(("word: Word", "word: Words"),),
        says=("cannot import words: NameError: name 'Words' is not defined", "Word", "words.py:"),
    ),
    Mistake(
        name="A package that the app needs is not installed",
        run=(CHECK,),
        edits=(("from collections", "import sklearnn\nfrom collections"),),
        says=("cannot import words: ModuleNotFoundError: No module named 'sklearnn'", ".py:1"),
    ),
    Mistake(
        name="A handler without annotations",
        run=(WORK,),
        edits=((HANDLER, "async def measure(word):"),),
        says=("stage measure: annotate 'word' with the Message it reads, not with nothing",),
    ),
    Mistake(
        name="A handler that does not say what it returns",
        run=(WORK,),
        edits=((" -> Length:", ":"),),
        says=("stage measure: annotate what it returns (-> Out, Out | None",),
    ),
    Mistake(
        name="A type that is no Message",
        run=(WORK,),
        edits=(("class Word(Message):", "class Word:"),),
        says=("stage measure: annotate 'word'", "`class Word(Message)` makes it one"),
    ),
    Mistake(
        name="A handler that returns something else than messages",
        run=(WORK,),
        edits=(("-> Length:", "-> str:"),),
        says=("stage measure: returns str, which is no Message or Row",),
    ),
    Mistake(
        name="A handler that wants more than a message and a context",
        run=(WORK,),
        edits=(("(word: Word)", "(word: Word, database: str)"),),
        says=("the second parameter is the Context, not str", "lifespan="),
    ),
    Mistake(
        name="The stage's name without name=",
        run=(CHECK,),
        edits=(("@app.stage(attempts=1)", '@app.stage("measure")'),),
        says=("write its name as name=: @app.stage(name='measure')",),
    ),
    Mistake(
        name="A limit is misspelt",
        run=(WORK,),
        edits=(("attempts=1", "concurency=3"),),
        says=("stage measure: concurency= is no keyword of a stage; the limits are",),
    ),
    Mistake(
        name="A limit that is no time",
        run=(WORK,),
        edits=(("attempts=1", 'timeout="5 parsecs"'),),
        says=("stage measure: timeout='5 parsecs' is no duration: write seconds, or",),
    ),
    Mistake(
        name="A keyword of a type is misspelt",
        run=(CHECK,),
        edits=(("class Word(Message):", 'class Word(Message, subjct="w"):'),),
        says=("Word: subjct= is no class keyword of a message; did you mean subject=?",),
    ),
    Mistake(
        name="A key that is no field",
        run=(CHECK,),
        edits=(("class Word(Message):", 'class Word(Message, key="id"):'),),
        says=("Word: no field 'id'; it has text",),
    ),
    Mistake(
        name="A field without a type",
        run=(CHECK,),
        edits=(("    text: str\n\n\nclass Length", '    text = ""\n\n\nclass Length'),),
        says=("Word.text has no type, and so is no field: write `text: str = ''`",),
    ),
    Mistake(
        name="A lifespan with a parameter",
        run=(WORK,),
        edits=(
            (
                MODULE,
                "@asynccontextmanager\nasync def life(app):\n    yield\n\n\n"
                'app = App("{name}", lifespan=life)',
            ),
        ),
        says=("lifespan life is called without arguments, and wants app",),
    ),
    Mistake(
        name="A lifespan without its decorator",
        run=(WORK,),
        edits=(
            (
                MODULE,
                'async def life():\n    yield\n\n\napp = App("{name}", lifespan=life)',
            ),
        ),
        says=("lifespan life makes no context manager: write @contextlib.asynccontextmanager",),
    ),
    Mistake(
        name="Two types with one table",
        run=(WORK,),
        edits=(
            ROW,
            (
                "@app.stage",
                'class Size(Row, table="{name}_length"):\n    size: int\n\n\n@app.stage\n'
                "async def weigh(word: Word) -> Size: ...\n\n\n@app.stage",
            ),
        ),
        says=("both have table 'words_length'; rename one with table=",),
    ),
    Mistake(
        name="A table sorted by what may be missing",
        run=(CHECK,),
        code=1,
        edits=(ROW, ("    text: str\n    length", "    text: str | None\n    length")),
        says=("order_by names 'text', which is Nullable(String)",),
    ),
    Mistake(
        name="A type of column that there is not",
        run=(CHECK,),
        code=1,
        edits=(
            ROW,
            ("    length: int", '    length: Annotated[int, Column("Uint32")]'),
            ("from mqinfer import", "from typing import Annotated\n\nfrom mqinfer import Column,"),
        ),
        says=("Column('Uint32')", "did you mean UInt32?"),
    ),
    Mistake(
        name="An app without stages",
        run=("worker {name}:app",),
        edits=(("@app.stage(attempts=1)\n", ""),),
        says=("has no stages: declare one with @app.stage",),
    ),
    Mistake(
        name="A gateway without an endpoint",
        run=("gateway {name}:app --http 0",),
        says=("has no endpoint: declare one with app.endpoint(...)",),
    ),
    Mistake(
        name="deploy.toml is misspelt",
        run=("deploy render {name}:app deploy.toml --target local",),
        files={"deploy.toml": '[workers.all]\nprocesse = 2\n\n[settings]\nnats_ulr = "x"\n'},
        says=("deploy.toml (2 problems)", "did you mean nats_url?", "did you mean processes?"),
    ),
    Mistake(
        name="A deploy.toml that is not there",
        run=("deploy render {name}:app deploy.toml --target local",),
        says=("there is no deploy.toml: docs/deploy.md shows one",),
    ),
    Mistake(
        name="models.toml is misspelt",
        run=("check models.toml --offline",),
        files={"models.toml": '[[model]]\nname = "rate"\n'},
        says=("models.toml: model: there is no such key; did you mean 'models'?",),
    ),
    Mistake(
        name="A file that is not there",
        run=("publish {name}:app word wrods.jsonl",),
        says=("wrods.jsonl: there is no such file",),
    ),
)

SERVERS = (
    Mistake(
        name="No NATS at the address",
        run=("worker {name}:app --no-wait",),
        environ={"MQINFER_NATS_URL": NOBODY},
        code=1,
        says=("nobody listens there: is it running (mqinfer up), and is MQINFER_NATS_URL",),
    ),
    Mistake(
        name="NATS by HTTP",
        run=("status {name}:app",),
        environ={"MQINFER_NATS_URL": "http://127.0.0.1:4222"},
        says=("MQINFER_NATS_URL='http://127.0.0.1:4222' is not allowed: it must be nats://",),
    ),
    Mistake(
        name="A setting is misspelt in the environment",
        run=("status {name}:app",),
        environ={"MQINFER_NAT_URL": "nats://elsewhere:4222"},
        code=0,
        says=("MQINFER_NAT_URL is set, but no setting has this name", "MQINFER_NATS_URL?"),
    ),
    Mistake(
        name="A setting with a value that cannot be",
        run=("status {name}:app",),
        environ={"MQINFER_GRACE": "soon"},
        says=("MQINFER_GRACE='soon' is not allowed: it must be seconds, or",),
    ),
    Mistake(
        name="Triton's HTTP port instead of gRPC's",
        run=("check {name}:app",),
        environ={"MQINFER_TRITON_URL": "http://127.0.0.1:8000"},
        says=("MQINFER_TRITON_URL='http://127.0.0.1:8000'", "host:port of the gRPC endpoint"),
    ),
    Mistake(
        name="A subject is misspelt",
        run=("publish {name}:app wrod words.jsonl",),
        files=WORDS,
        says=("has no subject 'wrod'; it has word",),
    ),
    Mistake(
        name="A line lacks a field",
        run=(PUBLISH,),
        files={"words.jsonl": '{"txt": "petal"}\n'},
        code=1,
        says=("line 1: the payload is no Word: Object missing required field `text`",),
    ),
    Mistake(
        name="A JSON array instead of lines",
        run=(PUBLISH,),
        files={"words.jsonl": '[{"text": "petal"}]\n'},
        code=1,
        says=("line 1: the payload is no Word: Expected `object`, got `array`",),
    ),
    Mistake(
        name="A message that is larger than the server takes",
        run=(PUBLISH,),
        files={"words.jsonl": '{"text": "' + "a" * 9_000_000 + '"}\n'},
        code=1,
        says=("the server takes 8,388,608", "carry the bytes as a Blob with a path"),
    ),
    Mistake(
        name="A port that is taken",
        run=("worker {name}:app --drain --no-wait --stage measure --http {taken}",),
        says=("cannot serve HTTP on 127.0.0.1:", "Address already in use", "choose another --http"),
    ),
    Mistake(
        name="More storage than the server has",
        run=(WORK,),
        edits=((MODULE, 'app = App("{name}", max_bytes="900TB")'),),
        says=("the server has not that much storage; lower the app's max_bytes",),
    ),
    Mistake(
        name="Replicas without a cluster",
        run=(WORK,),
        edits=((MODULE, 'app = App("{name}", replicas=3)'),),
        says=("replicas > 1 not supported", "this server is alone; App(replicas=1), or"),
    ),
)

HANDLERS = (
    Mistake(
        name="A handler that returns a dict",
        run=HANDLED,
        edits=((RETURN, 'return {"text": word.text}'),),
        files=WORDS,
        code=0,
        letter=True,
        says=("stage measure wrote a dict; its annotation declares Length",),
    ),
    Mistake(
        name="A handler that returns a wrong value",
        run=HANDLED,
        edits=((RETURN, 'return Length(word.text, "five")'),),
        files=WORDS,
        code=0,
        letter=True,
        says=("Length.length is 'five'", "Expected `int`, got `str`"),
    ),
    Mistake(
        name="A handler that forgets to await",
        run=HANDLED,
        edits=(
            (RETURN, "return longest(word)"),
            ("@app.stage", "async def longest(word: Word) -> Length: ...\n\n\n@app.stage"),
        ),
        files=WORDS,
        code=0,
        letter=True,
        says=("wrote a coroutine, longest, that nobody awaited: write `await`",),
    ),
    Mistake(
        name="A handler that changes its message",
        run=HANDLED,
        edits=((RETURN, 'word.text = ""\n    return Length("", 0)'),),
        files=WORDS,
        code=0,
        letter=True,
        says=("AttributeError: immutable type: 'Word'",),
    ),
    Mistake(
        name="A field is added while messages are in flight",
        run=(PUBLISH, "check {name}_later:app"),
        files={
            **WORDS,
            "{name}_later.py": (
                "from mqinfer import App, Message\n\n"
                'app = App("{name}")\n\n\nclass Word(Message):\n    text: str\n    lang: str\n\n\n'
                "@app.stage\nasync def measure(word: Word) -> None: ...\n"
            ),
        },
        code=1,
        says=("would be dead letters", "missing required field `lang`", "give the field a default"),
    ),
)

LIBRARY = (
    Mistake(
        name="connect without async with",
        script="client = mqinfer.connect(app)\nawait client.publish(Word('petal'))",
        says=("'publish' is asked of a client that is not connected", "async with mqinfer.connect"),
    ),
    Mistake(
        name="connect is awaited",
        script="client = await mqinfer.connect(app)",
        says=("mqinfer.connect(app) is not awaited: write `async with mqinfer.connect(app)",),
    ),
    Mistake(
        name="with instead of async with",
        script="with mqinfer.connect(app) as client:\n    pass",
        says=("NotConnected", "write `async with mqinfer.connect(app) as client:`"),
    ),
    Mistake(
        name="connect with the name of the app",
        script="async with mqinfer.connect('{name}:app'):\n    pass",
        says=("mqinfer.connect takes the App itself, not a str",),
    ),
    Mistake(
        name="A dict is published",
        script="async with mqinfer.connect(app) as client:\n"
        "    await client.publish({'text': 'petal'})",
        says=("publish takes a message, not a dict",),
    ),
    Mistake(
        name="A type is published instead of a message",
        script="async with mqinfer.connect(app) as client:\n    await client.publish(Word)",
        says=("publish takes a message, and Word is a type of messages: publish Word(...)",),
    ),
    Mistake(
        name="A wrong value is published",
        script="async with mqinfer.connect(app) as client:\n    await client.publish(Word(5))",
        says=("Word.text is 5", "Expected `str`, got `int`"),
    ),
    Mistake(
        name="A model is called where nothing runs",
        script="await double(x=1)",
        says=("model double: call it inside a handler that a worker runs, or while a client",),
    ),
    Mistake(
        name="A client is used after it was closed",
        script="async with mqinfer.connect(app) as client:\n    pass\n"
        "await client.publish(Word('petal'))",
        says=("closed",),
    ),
    Mistake(
        name="A worker with a stage that is misspelt",
        script="await mqinfer.Worker(app, stages=['mesure']).run()",
        says=("has no stage mesure; it has measure",),
    ),
)

MISTAKES = (*DECLARED, *SERVERS, *TABLES, *MODELS, *HANDLERS, *LIBRARY)
