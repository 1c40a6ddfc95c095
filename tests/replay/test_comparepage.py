"""The page of a comparison: what it shows, that nothing hostile gets out of its place in it, and
that it needs nothing from elsewhere."""

import subprocess
import sys
from html.parser import HTMLParser

from mqinfer.replay.comparepage import Figure, data_url, page

PNG = b"\x89PNG\r\n\x1a\n + a picture's bytes"
EVIL = "\"'><script>alert(1)</script>&amp;"


def facts(text: str = "rust", **changed):
    """A table with one column of labels, one of numbers, and an example."""
    table = {
        "table": "grade",
        "matched": 12345,
        "agreement": 0.5,
        "only_new": 1,
        "only_old": 0,
        "ignored": ["version"],
        "columns": {
            "disease": {
                "agreement": 0.5,
                "changes": [
                    {"old_value": text, "new_value": None, "n": 2000},
                    {"old_value": "mildew", "new_value": "mildew", "n": 3},
                ],
            },
            "score": {
                "agreement": None,
                "changes": None,
                "numbers": {
                    "old_mean": 1234.5678,
                    "new_mean": 0.25,
                    "shift": -0.5,
                    "most_change": None,
                },
            },
            "same": {"agreement": 1.0, "changes": [{"old_value": 1, "new_value": 1, "n": 5}]},
        },
        "examples": [
            {
                "input": "m1",
                "sequence": 7001,
                "problem": None,
                "old": {"disease": text, "version": "1", "score": 0.5},
                "new": {"disease": None, "version": "2", "score": 0.5},
            }
        ],
    }
    return {"run": "may", "with": "live", "tables": [table | changed]}


class Read(HTMLParser):
    """The tags that are open, those that were, and the text of each kind of element."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.setdefault(self.open[-1], []).append(" ".join(data.split()))

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def test_what_the_page_says():
    picture = Figure("input.image: a.png", data_url(PNG))
    read = Read(page(facts(), {("grade", 0): [picture, Figure("gone.png (not found)")]}))
    assert read.open == []
    assert read.texts["title"] == read.texts["h1"] == ["Run may beside live"]
    assert read.texts["h2"] == ["grade"]
    assert read.texts["p"] == [
        "12,345 rows matched, 50.00 % the same; 1 only in the run, 0 only before; ignored: version."
    ]
    assert read.texts["h3"] == ["disease", "Changed most"]  # a column that stayed is not told
    assert read.texts["h4"] == ["m1, sequence 7,001"]
    assert read.texts["figcaption"] == ["input.image: a.png", "gone.png (not found)"]
    assert read.attributes("src") == [data_url(PNG)]
    cells = ["disease", "50.00 %", "score", "-", "1,235", "0.25", "-0.5", "same", "100.00 %"]
    assert read.texts["td"][: len(cells)] == cells
    assert read.texts["td"][len(cells) :][:6] == ["rust", "-", "2,000", "mildew", "mildew", "3"]
    # The version differs as well, but is ignored.
    assert [a for tag, a in read.tags if tag == "tr" and a] == [{"class": "changed"}]


def test_without_examples_and_ignored_columns():
    read = Read(page(facts(examples=[], ignored=[], agreement=None), {}))
    assert read.texts["p"] == ["12,345 rows matched, - the same; 1 only in the run, 0 only before."]
    assert "Changed most" not in read.texts["h3"]


def test_hostile_values_stay_text():
    hostile = facts(EVIL, table=EVIL, ignored=[EVIL])
    hostile |= {"run": EVIL, "with": EVIL}
    (table,) = hostile["tables"]
    table["columns"][EVIL] = table["columns"]["disease"]
    (example,) = table["examples"]
    example |= {"input": EVIL, "problem": EVIL, "old": {EVIL: EVIL}, "new": {EVIL: "x"}}
    figure = Figure(EVIL, data_url(PNG))
    text = page(hostile, {(EVIL, 0): [figure]})
    read = Read(text)
    assert read.open == []
    assert {"script", "b"}.isdisjoint(tag for tag, _ in read.tags)
    assert read.attributes("alt") == [EVIL]
    assert text.count("<script") == 0
    assert EVIL in read.texts["h2"]
    assert EVIL in read.texts["td"]
    assert f"its input: {EVIL}" in read.texts["p"]


def test_a_long_value_is_cut_and_a_template_in_a_value_is_not_run():
    read = Read(page(facts("{{ 6 * 7 }}" + "x" * 1000), {}))
    cut = next(text for text in read.texts["td"] if "xxx" in text)
    assert cut == "{{ 6 * 7 }}" + "x" * 289 + " ..."


def test_the_page_is_complete_in_itself():
    text = page(facts(), {("grade", 0): [Figure("a", data_url(PNG))]})
    read = Read(text)
    assert text.startswith("<!doctype html>\n")
    assert all(url.startswith("data:") for url in read.attributes("src"))
    assert {"link", "script", "iframe"}.isdisjoint(tag for tag, _ in read.tags)
    assert not read.attributes("href")
    assert "url(" not in text


def test_what_a_browser_shows_is_known_by_its_start():
    assert data_url(PNG).startswith("data:image/png;base64,")
    assert data_url(b"<svg onload=alert(1)>") is None
    assert data_url(b"") is None


def test_jinja_is_imported_when_a_page_is_made():
    code = "import mqinfer.cli, mqinfer.replay.examples, sys; sys.exit('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
