"""Plugins in Python: where their classes come from, what a changed source does, how their tables are read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.plugins.several import Limits, One, OneConfig

from fastgate.config import ConfigError, Loaded, load, loads, model
from fastgate.config.plugin_types import BUILT_IN
from fastgate.plugins import Plugin, PluginConfig, Rate, Secret

HEAD = '[[listeners]]\nbind = ":8080"\n[[routes]]\nname = "a"\nrespond = {}\nplugins = ["p"]\n[plugins.p]\n'
SAMPLES = Path(__file__).parent / "support" / "plugins"


@pytest.fixture(autouse=True)
def _path_of_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test adds to the path, and the modules it loads from there, do not outlive it."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - before:
        if name.startswith("sample_"):
            del sys.modules[name]


def plugin_source(says: str, name: str = "Mine") -> str:
    return (
        "from fastgate.plugins import Plugin, PluginConfig\n\n"
        f"class {name}(Plugin):\n"
        "    class Config(PluginConfig):\n"
        "        key: str = 'default'\n\n"
        f"    says = {says!r}\n"
    )


def use_of(folder: Path, use: str, keys: str = "") -> model.PluginUse:
    text = f'{HEAD}use = "{use}"\n{keys}'
    plugin = loads(text, str(folder / "gateway.toml"), strict=True).config.plugins["p"]
    assert isinstance(plugin, model.PluginUse)
    return plugin


def says(plugin: model.PluginUse) -> Any:
    return plugin.plugin.says


def error_of(folder: Path, use: str, keys: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        use_of(folder, use, keys)
    [problem] = caught.value.problems
    assert (problem.line, problem.column) == (8, 7) or keys
    return problem.message + (f"; {problem.hint}" if problem.hint else "")


# -- files


def test_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(plugin_source("one"))
    found = use_of(tmp_path, "./mine.py", 'key = "x"\ntimeout = "250ms"\non_failure = "open"\n')
    assert (found.name, found.use, says(found)) == ("p", "./mine.py", "one")
    assert issubclass(found.plugin, Plugin)
    assert found.config == found.plugin.Config(key="x")
    assert (found.timeout, found.on_failure, found.report_only) == (250_000_000, "open", False)
    assert use_of(tmp_path, "./mine.py:Mine").plugin is found.plugin


def test_an_unchanged_file_gives_an_equal_plugin(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(plugin_source("one"))
    before = use_of(tmp_path, "./mine.py")
    assert use_of(tmp_path, "./mine.py") == before
    assert use_of(tmp_path, "./mine.py", 'key = "x"') != before
    assert use_of(tmp_path, "./mine.py", 'timeout = "1s"') != before


def test_a_changed_file_gives_a_new_class_beside_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(plugin_source("one"))
    before = use_of(tmp_path, "./mine.py")
    file.write_text(plugin_source("two"))  # of the same length, within the same second
    after = use_of(tmp_path, "./mine.py")
    assert (says(before), says(after)) == ("one", "two")
    assert before != after
    assert before.version != after.version
    file.write_text(plugin_source("one"))
    assert use_of(tmp_path, "./mine.py") == before  # as after a reload that failed


def test_files_of_one_name_in_two_folders_are_two_modules(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(plugin_source(folder))
    assert says(use_of(tmp_path / "a", "./mine.py")) == "a"
    assert says(use_of(tmp_path / "b", "./mine.py")) == "b"
    assert says(use_of(tmp_path / "b", "../a/mine.py")) == "a"
    assert says(use_of(tmp_path / "b", str(tmp_path / "a" / "mine.py"))) == "a"


def test_a_file_may_import_what_stands_beside_it(tmp_path: Path) -> None:
    (tmp_path / "sample_helper.py").write_text("WORD = 'helped'\n")
    (tmp_path / "mine.py").write_text(
        "import sample_helper\n" + plugin_source("").replace("''", "sample_helper.WORD")
    )
    assert says(use_of(tmp_path, "./mine.py")) == "helped"


def test_a_syntax_error_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("\n\nclass Mine(:\n")
    assert error_of(tmp_path, "./mine.py").endswith('cannot load "./mine.py": invalid syntax (mine.py:3)')


def test_what_fails_within_an_import_is_told_with_the_plugins_own_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import json\n\njson.loads('{')\n")
    assert "JSONDecodeError" in error_of(tmp_path, "./mine.py")
    assert error_of(tmp_path, "./mine.py").endswith("(mine.py:3)")


def test_a_file_that_ends_the_process_does_not(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import sys\nsys.exit('bye')\n")
    assert error_of(tmp_path, "./mine.py").endswith("SystemExit: bye (mine.py:2)")


def test_a_file_that_failed_is_tried_anew(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import sample_later\n" + plugin_source("one"))
    assert error_of(tmp_path, "./mine.py").endswith('the module "sample_later", which is not installed')
    (tmp_path / "sample_later.py").write_text("")
    assert says(use_of(tmp_path, "./mine.py")) == "one"


def test_a_file_that_is_no_text_or_too_large(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_bytes(b"\0\xff")
    assert 'cannot load "./mine.py": ' in error_of(tmp_path, "./mine.py")
    (tmp_path / "mine.py").write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    assert error_of(tmp_path, "./mine.py") == 'use: "./mine.py" is larger than 4 MiB'


# -- modules


def test_a_module_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "sample_one.py").write_text(plugin_source("one"))
    found = use_of(tmp_path, "sample_one:Mine")
    assert (says(found), found.plugin.__module__) == ("one", "sample_one")
    assert use_of(tmp_path, "sample_one:Mine") == found


def test_a_changed_module_is_loaded_anew_and_the_old_one_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "sample_two.py"
    file.write_text(plugin_source("one"))
    before = use_of(tmp_path, "sample_two:Mine")
    module = sys.modules["sample_two"]
    file.write_text(plugin_source("two"))
    after = use_of(tmp_path, "sample_two:Mine")
    assert (says(before), says(after)) == ("one", "two")
    assert before != after
    assert module.Mine is before.plugin
    assert sys.modules["sample_two"].Mine is after.plugin


def test_a_changed_module_that_fails_leaves_the_old_one_in_place(tmp_path: Path) -> None:
    file = tmp_path / "sample_three.py"
    file.write_text(plugin_source("one"))
    before = use_of(tmp_path, "sample_three:Mine")
    file.write_text("1 / 0\n")
    assert "ZeroDivisionError: division by zero (sample_three.py:1)" in error_of(
        tmp_path, "sample_three:Mine"
    )
    assert sys.modules["sample_three"].Mine is before.plugin


def test_a_module_in_a_package(tmp_path: Path) -> None:
    package = tmp_path / "sample_package" / "inner"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text(plugin_source("package"))
    (package / "module.py").write_text("from . import Mine\n\n\nclass Outer:\n    Plugin = Mine\n")
    assert says(use_of(tmp_path, "sample_package.inner:Mine")) == "package"
    assert says(use_of(tmp_path, "sample_package.inner.module:Outer.Plugin")) == "package"
    (package / "__init__.py").write_text(plugin_source("changed"))
    assert says(use_of(tmp_path, "sample_package.inner:Mine")) == "changed"
    assert sys.modules["sample_package"].inner is sys.modules["sample_package.inner"]


def test_a_class_that_a_package_only_offers_is_followed_to_its_own_file(tmp_path: Path) -> None:
    package = tmp_path / "sample_offering"
    package.mkdir()
    (package / "__init__.py").write_text("from sample_offering.inner import Mine as Mine\n")
    (package / "inner.py").write_text(plugin_source("one"))
    before = use_of(tmp_path, "sample_offering:Mine")
    assert use_of(tmp_path, "sample_offering:Mine") == before
    (package / "inner.py").write_text(plugin_source("two"))
    after = use_of(tmp_path, "sample_offering:Mine")
    assert (says(before), says(after)) == ("one", "two")
    assert before != after


def test_a_module_that_the_program_has_imported_is_shared_with_it(tmp_path: Path) -> None:
    assert use_of(tmp_path, "support.plugins.several:One", 'label = "x"').plugin is One


def test_another_module_of_the_same_name_does_not_hide_the_one_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text(plugin_source("mine"))
    assert 'not the one beside the configuration; use "./json.py"' in error_of(tmp_path, "json:Mine")


def test_a_module_without_source(tmp_path: Path) -> None:
    assert error_of(tmp_path, "math:Mine") == 'use: "math" has no class "Mine"'


# -- entry points


def offer(folder: Path, package: str, name: str, value: str) -> None:
    """An installed package that offers a plugin."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fastgate.plugins]\n{name} = {value}\n")


def test_an_installed_package_offers_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(tmp_path / "site", "sample-dist", "sample", "sample_dist:Mine")
    (tmp_path / "site" / "sample_dist.py").write_text(plugin_source("installed"))
    monkeypatch.syspath_prepend(tmp_path / "site")
    found = use_of(tmp_path, "sample", 'key = "x"')
    assert (says(found), found.use, found.config.key) == ("installed", "sample", "x")
    assert found.version
    assert error_of(tmp_path, "sampel").endswith('did you mean "sample"?')
    offer(tmp_path / "site", "sample-other", "sample", "sample_other:Mine")
    assert error_of(tmp_path, "sample").startswith('use: several packages offer a plugin named "sample": ')


def test_an_entry_point_that_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(tmp_path / "site", "sample-broken", "broken", "sample_nowhere:Mine")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert error_of(tmp_path, "broken").startswith('use: no module is named "sample_nowhere"')


# -- those that ship


def test_what_a_plugin_that_ships_needs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastgate.config import plugin_types

    monkeypatch.setitem(BUILT_IN, "greeter", "support.plugins.greeter:Greeter")
    found = use_of(tmp_path, "greeter")
    assert (found.version, found.plugin.__name__) == ("", "Greeter")
    monkeypatch.setitem(plugin_types._NEEDS, "greeter", ("auth", ("sample_jose", "sample_crypto")))
    assert error_of(tmp_path, "greeter") == (
        'use: "greeter" needs "sample_jose" and "sample_crypto", not installed here; '
        "pip install 'fastgate[auth]'"
    )


# -- their tables


def samples(keys: str, use: str = "./greeter.py") -> Any:
    return use_of(SAMPLES, use, keys).config


def test_every_kind_of_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE_TOKEN", "hunter2")
    config = samples(
        'greeting = "day"\nloud = true\ncount = -5\nvolume = 2\nwait = "2s"\nrate = "10/m"\n'
        'header = "X-Day"\ntoken = { env = "SAMPLE_TOKEN" }\nwords = { a = 1 }\nfirst = { text = "b" }\n'
        'by_name = { ada = { text = "c", times = 2 } }\n'
    )
    assert (config.greeting, config.loud, config.count, config.volume) == ("day", True, -5, 2.0)
    assert (config.wait, config.rate, config.header) == (2 * 10**9, Rate(10, 60 * 10**9), "x-day")
    assert isinstance(config.token, Secret)
    assert config.token.reveal() == "hunter2"
    assert (config.words, config.first.text, config.by_name["ada"].times) == ({"a": 1}, "b", 2)


def test_a_dataclass_as_configuration(tmp_path: Path) -> None:
    found = use_of(tmp_path, "support.plugins.several:One", 'label = "x"\nlimits = { most = 5 }\n')
    assert found.config == OneConfig("x", Limits(5))
    assert use_of(tmp_path, "support.plugins.several:One", 'label = "x"').config == OneConfig("x")


def test_a_configuration_may_refuse_its_values_itself(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        plugin_source("one").replace(
            "    says",
            "        def __post_init__(self) -> None:\n"
            "            if self.key == 'bad':\n"
            "                raise ValueError('a bad key')\n\n"
            "    says",
        )
    )
    assert error_of(tmp_path, "./mine.py", 'key = "bad"') == "[plugins.p]: a bad key"
    assert use_of(tmp_path, "./mine.py").config.key == "default"


def test_a_check_that_raises_is_a_problem_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        plugin_source("one")
        + "\n    @classmethod\n    def check(cls, config):\n        raise KeyError('x')\n"
    )
    assert (
        error_of(tmp_path, "./mine.py", "report_only = true")
        == "[plugins.p]: Mine.check raised KeyError('x')"
    )


def test_types_that_cannot_be_found_are_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from __future__ import annotations\n" + plugin_source("one").replace("key: str", "key: Str")
    )
    assert "name 'Str' is not defined where its types are looked up" in error_of(tmp_path, "./mine.py")


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("list[str]", "an array is tuple"),
        ("tuple", "an array is tuple"),
        ("tuple[str, int]", "an array is tuple"),
        ("dict[int, str]", "the keys of a table are str"),
        ("dict", "is no type that the configuration can hold"),
        ("str | int", "one type, or that and None"),
        ("Literal[True, 'x']", "a Literal of str or int"),
        ("Annotated[str, doc('x', 'colour')]", 'there is no form "colour"'),
        ("Any", "is no type that the configuration can hold"),
        ("bytes", "is no type that the configuration can hold"),
    ],
)
def test_types_that_cannot_be_read_are_told(tmp_path: Path, written: str, why: str) -> None:
    (tmp_path / "mine.py").write_text(
        "from typing import Annotated, Any, Literal\nfrom fastgate.plugins import doc\n"
        + plugin_source("one").replace("key: str =", f"key: {written} | None =")
    )
    message = error_of(tmp_path, "./mine.py")
    assert message.startswith("use: the configuration of Mine cannot be read: Mine.Config.key: ")
    assert why in message


def test_arrays_of_tables_and_of_arrays(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        plugin_source("one").replace(
            "key: str = 'default'",
            "key: tuple[dict[str, str], ...] = ()\n        more: tuple[tuple[int, ...], ...] = ()",
        )
    )
    config = use_of(tmp_path, "./mine.py", 'key = [{ a = "b" }, { a = "b" }]\nmore = [[1], [1]]\n').config
    assert config.key == ({"a": "b"}, {"a": "b"})
    assert config.more == ((1,), (1,))


def test_constraints_that_nothing_reads_are_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from typing import Annotated\nfrom msgspec import Meta\n"
        + plugin_source("one").replace("key: str", "key: Annotated[str, Meta(max_length=3)]")
    )
    assert "Mine.Config.key: the configuration does not read max_length" in error_of(tmp_path, "./mine.py")


def test_required_keys_may_stand_behind_others() -> None:
    class Sample(PluginConfig):
        first: int = 1
        second: str

    assert Sample(second="x").first == 1
    with pytest.raises(AttributeError):
        Sample(second="x").first = 2  # type: ignore[misc]


# -- what they name


REFERRING = """
[[listeners]]
bind = ":8080"
[upstreams.asked]
endpoints = ["127.0.0.1:9001"]
[[routes]]
name = "a"
respond = {}
plugins = ["any"]
[plugins.any]
use = "./greeter.py"
after = ["first", "second"]
[plugins.first]
use = "./greeter.py"
after = "second"
[plugins.second]
use = "./greeter.py"
asks = "asked"
"""


def referring(text: str) -> Loaded:
    return loads(text, str(SAMPLES / "gateway.toml"))


def test_what_plugins_name_counts_as_used_and_stands_before_them() -> None:
    loaded = referring(REFERRING)
    assert loaded.warnings == ()
    assert list(loaded.config.plugins) == ["second", "first", "any"]


def test_what_they_do_not_name_is_unused() -> None:
    loaded = referring(REFERRING.replace('"second"', '"first"').replace('after = "first"', ""))
    assert [warning.message for warning in loaded.warnings] == [
        'after: "first" is listed twice', 'plugin "second" is used by no route and no listener',
    ]  # fmt: skip


def test_the_configuration_loads_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(plugin_source("one"))
    (tmp_path / "gateway.toml").write_text(f'{HEAD}use = "./mine.py"\n')
    [plugin] = load(str(tmp_path / "gateway.toml"), strict=True).config.plugins.values()
    assert isinstance(plugin, model.PluginUse)
    assert says(plugin) == "one"
