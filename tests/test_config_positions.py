"""The position index finds each key and value where the text has it, however the TOML is written."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastgate.config.positions import PositionIndex

Path = tuple[str | int, ...]

SCALARS = [
    "1", "-0x1F".replace("-", ""), "1_000", "3.14", "6.02e+23", "inf", "true", "false",
    "1979-05-27", "1979-05-27 07:32:00", "1979-05-27T07:32:00-08:00", "07:32:00.5",
    '""', '"a, ] } # b"', '"q\\"\\\\"', '"\\u00e9 é 🙂"', "''", "'c:\\x'", "'#'",
    '""""""', '"""a\n  b # no comment\n"""', '"""say \\""" twice"""', '"""ends with a quote""""',
    '"""two"""""',
    "''''''", "'''a\n[x]\nb = 1'''", "'''it''s'''", '"""\\\n   joined"""',
]  # fmt: skip

bare_keys = st.text("abcXYZ019_-", min_size=1, max_size=5)
odd_keys = st.text("a .=[]#é🙂'\\\"\t", max_size=4)
blanks = st.sampled_from(["", " ", "\t", "  "])
fillers = st.sampled_from(["", " ", "\n", "  \n\t", " # note ] , }\n", "\r\n"])
trees = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(bare_keys | odd_keys, inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(bare_keys | odd_keys, trees, max_size=4)


def quoted(key: str) -> str:
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t") + '"'


class Writer:
    """Writes a tree as TOML in ways that are drawn, and notes the offset of each key and value."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.text = ""
        self.keys: dict[Path, int] = {}
        self.values: dict[Path, int] = {}

    def put(self, text: str) -> None:
        self.text += text

    def blank(self) -> None:
        self.put(self.draw(blanks))

    def fill(self) -> None:
        self.put(self.draw(fillers))

    def key(self, name: str) -> int:
        at = len(self.text)
        simple = name and name.isascii() and name.replace("-", "").replace("_", "").isalnum()
        literal = "'" not in name and "\t" not in name
        forms = [quoted(name)] + ([name] * 2 if simple else []) + ([f"'{name}'"] if literal else [])
        self.put(self.draw(st.sampled_from(forms)))
        return at

    def value(self, path: Path, tree: Any) -> None:
        self.values[path] = len(self.text)
        if isinstance(tree, str):
            self.put(tree)
        elif isinstance(tree, list):
            self.put("[")
            self.fill()
            for i, item in enumerate(tree):
                self.value((*path, i), item)
                self.fill()
                if i < len(tree) - 1 or self.draw(st.booleans()):
                    self.put(",")
                    self.fill()
            self.put("]")
        else:
            self.put("{")
            self.blank()
            for i, (name, item) in enumerate(tree.items()):
                self.assignment((*path, name), item)
                self.blank()
                if i < len(tree) - 1:
                    self.put(",")
                    self.blank()
            self.put("}")

    def assignment(self, path: Path, tree: Any) -> None:
        """`a = ...`, or `a.b = ...` where a table has one key only."""
        self.keys[path] = self.key(str(path[-1]))
        while isinstance(tree, dict) and len(tree) == 1 and self.draw(st.booleans()):
            self.values[path] = self.keys[path]
            [(name, tree)] = tree.items()
            path = (*path, name)
            self.blank()
            self.put(".")
            self.blank()
            self.keys[path] = self.key(name)
        self.blank()
        self.put("=")
        self.blank()
        self.value(path, tree)

    def end_line(self) -> None:
        self.put(self.draw(st.sampled_from(["\n", "\r\n", " # [x] = 'y\n", "\n\n\t"])))

    def header(self, path: Path, brackets: int) -> None:
        """Of the table at ``path``; array indexes are not written, since they mean the last element."""
        at = len(self.text)
        self.put("[" * brackets)
        names = [part for part in path if isinstance(part, str)]
        for i, name in enumerate(names):
            self.blank()
            key_at = self.key(name)
            self.blank()
            if i < len(names) - 1:
                self.put(".")
        self.put("]" * brackets)
        self.keys[path] = key_at
        self.values[path] = at
        self.end_line()

    def table(self, path: Path, tree: dict[str, Any]) -> None:
        """The body of a table: plain assignments first, then what gets a header of its own."""
        later = []
        for name, item in tree.items():
            if (isinstance(item, dict) and self.draw(st.booleans())) or (
                isinstance(item, list)
                and item
                and all(isinstance(i, dict) for i in item)
                and self.draw(st.booleans())
            ):
                later.append((name, item))
            else:
                self.assignment((*path, name), item)
                self.end_line()
        for name, item in later:
            if isinstance(item, dict):
                self.header((*path, name), 1)
                self.table((*path, name), item)
            else:
                for i, element in enumerate(item):
                    self.header((*path, name, i), 2)
                    if i == 0:
                        self.keys[*path, name] = self.keys[*path, name, 0]
                        self.values[*path, name] = self.values[*path, name, 0]
                    self.table((*path, name, i), element)


def place(text: str, at: int) -> tuple[int, int]:
    before = text[:at].replace("\r\n", "\n")
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def all_paths(value: Any, path: Path = ()) -> set[Path]:
    paths = {path} if path else set()
    items: Any = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, item in items:
        paths |= all_paths(item, (*path, key))
    return paths


@given(documents, st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_key_and_value_is_found_where_it_was_written(
    document: dict[str, Any], data: st.DataObject
) -> None:
    writer = Writer(data.draw)
    writer.table((), document)
    parsed = tomllib.loads(writer.text)
    index = PositionIndex(writer.text)
    assert index.paths() == all_paths(parsed) == set(writer.values)
    for path, at in writer.values.items():
        assert index.value(path) == place(writer.text, at), path
    for path, at in writer.keys.items():
        assert index.key(path) == place(writer.text, at), path


def test_tables_that_headers_imply() -> None:
    index = PositionIndex("# first\n[a.b.c]\nx = 1\n  [a]\ny.z = 2\n[a.b]\n")
    assert index.value(("a", "b", "c", "x")) == (3, 5)
    assert index.value(("a",)) == (4, 3)
    assert index.key(("a",)) == (4, 4)
    assert index.key(("a", "y")) == (5, 1)
    assert index.value(("a", "y", "z")) == (5, 7)
    assert index.value(("a", "b")) == (6, 1)


def test_headers_through_arrays_mean_the_last_element() -> None:
    index = PositionIndex("[[r]]\n[r.m]\nx = 1\n[[r]]\n[[r.s]]\n[[r.s]]\n[r.s.t]\ny = 2\n")
    assert index.value(("r", 0, "m", "x")) == (3, 5)
    assert index.value(("r", 1)) == (4, 1)
    assert index.value(("r", 1, "s", 1, "t", "y")) == (8, 5)


def test_what_is_not_there_has_the_place_of_what_encloses_it() -> None:
    index = PositionIndex("[server]\nx = { a = 1 }\n")
    assert index.value(("server", "x", "b", 3)) == (2, 5)
    assert index.key(("server", "y")) == (1, 1)
    assert index.value(("nothing",)) == (1, 1)


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "a = 1"])
def test_small_documents(text: str) -> None:
    assert PositionIndex(text).paths() == all_paths(tomllib.loads(text))


@given(st.text(alphabet="a=[]{}.,\"'#\n ", max_size=30))
@settings(max_examples=300, deadline=None)
def test_text_that_is_no_toml_ends_the_walk(text: str) -> None:
    """tomllib never accepts it; a newer TOML may look so to this walker, and must not hang it."""
    index = PositionIndex(text)
    assert all(index.value(path) >= (1, 1) for path in index.paths())
