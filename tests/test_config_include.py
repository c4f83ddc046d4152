"""Configurations of several files: included ones, and several gateways beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastgate.config import ConfigError, load, load_sources, load_tables, model
from fastgate.config.including import MAX_DEPTH

LISTENER = '[[listeners]]\nbind = "127.0.0.1:0"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(files: dict[str, str]) -> None:
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def upstream(name: str, port: int = 9001) -> str:
    return f'[upstreams.{name}]\nendpoints = ["127.0.0.1:{port}"]\n'


def route(name: str, to: str, plugins: str = "") -> str:
    where = f'match = {{ prefix = "/{name}" }}'
    return f'[[routes]]\nname = "{name}"\n{where}\nupstream = "{to}"\nplugins = [{plugins}]\n'


def errors_of(*files: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*files)
    return [str(problem) for problem in caught.value.problems]


def test_what_is_included_stands_before_what_includes_it(folder: Path) -> None:
    write(
        {
            "gateway.toml": 'include = ["routes/*.toml", "up.toml"]\n' + LISTENER + route("last", "orders"),
            "routes/b.toml": route("b", "orders"),
            "routes/a.toml": 'include = ["more/c.toml"]\n' + route("a", "orders"),
            "routes/more/c.toml": route("c", "orders"),
            "routes/.hidden.toml": "not TOML",
            "up.toml": upstream("orders"),
        }
    )
    config = load("gateway.toml", strict=True).config
    assert [one.name for one in config.routes] == ["c", "a", "b", "last"]
    assert list(config.sources.texts) == [
        "routes/more/c.toml",
        "routes/a.toml",
        "routes/b.toml",
        "up.toml",
        "gateway.toml",
    ]
    assert config.sources.roots == ("gateway.toml",)


def test_names_of_files_are_relative_to_the_file_that_names_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        {
            "conf/gateway.toml": 'include = ["parts/all.toml"]\n' + LISTENER + route("a", "orders", '"mark"'),
            "conf/parts/all.toml": upstream("orders")
            + 'endpoints_file = "more.json"\n'
            + '[plugins.office]\nuse = "ip-filter"\nallow_file = "office.txt"\n'
            + '[plugins.mark]\nuse = "./mark.py"\nword = { file = "word.txt" }\n',
            "conf/parts/office.txt": "10.0.0.0/8\n",
            "conf/parts/word.txt": "hunter2\n",
            "conf/parts/mark.py": "import msgspec\nfrom fastgate.plugins import Plugin\n"
            "from fastgate.config.model import Secret\n"
            "class Mark(Plugin):\n"
            "    class Config(msgspec.Struct, frozen=True, kw_only=True):\n        word: Secret\n",
        }
    )
    config = load("conf/gateway.toml").config
    office, mark = config.plugins["office"], config.plugins["mark"]
    assert isinstance(office, model.IpFilter)
    assert isinstance(mark, model.PluginUse)
    assert (office.allow, office.allow_file) == (("10.0.0.0/8",), "parts/office.txt")
    assert config.upstreams["orders"].endpoints_file == "parts/more.json"
    assert mark.config.word.reveal() == "hunter2"
    attached = {
        str(Path(name).relative_to(folder) if name[0] == "/" else name) for name in config.sources.attached
    }
    assert attached == {"conf/parts/office.txt", "conf/parts/word.txt", "conf/parts/mark.py"}
    assert "hunter2" not in repr(config)
    assert not any("hunter2" in text for text in config.sources.texts.values())


def test_the_digest_follows_each_file(folder: Path) -> None:
    write(
        {
            "gateway.toml": 'include = ["up.toml"]\n' + LISTENER + route("a", "orders"),
            "up.toml": upstream("orders")
            + '[plugins.office]\nuse = "ip-filter"\nallow_file = "office.txt"\n',
            "office.txt": "10.0.0.0/8\n",
        }
    )
    first = load("gateway.toml").config.sources
    assert load("gateway.toml").config.sources.digest == first.digest
    write({"office.txt": "10.0.0.0/9\n"})
    second = load("gateway.toml").config.sources
    assert (second.text_digest == first.text_digest, second.digest == first.digest) == (True, False)
    write({"up.toml": upstream("orders", 9002)})
    assert load("gateway.toml").config.sources.text_digest != first.text_digest


def test_what_was_read_can_be_loaded_without_the_files(folder: Path) -> None:
    write(
        {
            "conf/gateway.toml": 'include = ["up/*.toml", "one.toml"]\n' + LISTENER + route("a", "orders"),
            "conf/one.toml": route("b", "users"),
            "conf/up/orders.toml": upstream("orders"),
            "conf/up/users.toml": upstream("users"),
        }
    )
    before = load("conf/gateway.toml").config
    for file in (*before.sources.texts,):
        Path(file).unlink()
    assert load_sources(before.sources).config == before


def test_a_file_that_two_ways_lead_to_is_taken_once(folder: Path) -> None:
    write(
        {
            "gateway.toml": 'include = ["*/a.toml", "x/*.toml"]\n' + LISTENER + route("r", "orders"),
            "x/a.toml": upstream("orders"),
        }
    )
    assert list(load("gateway.toml").config.upstreams) == ["orders"]


def test_depth_and_number_of_files_are_bounded(folder: Path) -> None:
    write({f"{i}.toml": f'include = ["{i + 1}.toml"]\n' for i in range(MAX_DEPTH + 2)})
    write({f"{MAX_DEPTH + 2}.toml": LISTENER, "many.toml": 'include = ["many/*.toml"]\n' + LISTENER})
    [deep] = errors_of("0.toml")
    assert deep == f"{MAX_DEPTH}.toml:1:12: include: files include each other more than {MAX_DEPTH} deep"
    write({f"many/{i}.toml": "" for i in range(1001)})
    [many] = errors_of("many.toml")
    assert many == 'many.toml:1:12: include: "many/*.toml": more than 1000 files match'


def test_tables_of_a_program_may_include_files(folder: Path) -> None:
    write({"up.toml": upstream("orders"), "bad.toml": "[server]\nzone = 7\n"})
    tables = {
        "include": ["up.toml"],
        "listeners": [{"bind": "127.0.0.1:0"}],
        "routes": [{"name": "a", "upstream": "orders"}],
    }
    assert load_tables(tables).config.upstreams["orders"].endpoints[0].port == 9001
    with pytest.raises(ConfigError) as caught:
        load_tables(tables | {"include": ["up.toml", "bad.toml"], "server": {}})
    assert "[server] is written twice" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        load_tables(tables | {"include": ["bad.toml", "none.toml"]})
    assert str(caught.value) == (
        '<tables>: include[1]: include: "none.toml" cannot be read: No such file or directory'
    )


# -- several gateways


MOBILE = (
    'include = ["shared.toml"]\n[[listeners]]\nname = "in"\nbind = "127.0.0.1:8081"\nplugins = ["limit"]\n'
)
WEB = 'include = ["shared.toml"]\n[[listeners]]\nname = "in"\nbind = "127.0.0.1:8082"\n'
LIMIT = '[plugins.limit]\nuse = "rate-limit"\nrate = "{}/s"\n'


def two(folder: Path) -> None:
    write(
        {
            "shared.toml": upstream("orders") + '[server]\nzone = "z"\n',
            "mobile.toml": MOBILE + route("orders", "orders") + route("own", "bff") + LIMIT.format(1)
            + upstream("bff"),
            "web.toml": WEB + route("orders", "orders", '"limit"') + route("own", "bff") + LIMIT.format(2)
            + upstream("bff", 9003),
        }
    )  # fmt: skip


def test_each_gateway_has_its_own_names(folder: Path) -> None:
    two(folder)
    config = load("mobile.toml", "web.toml", strict=True).config
    assert [(each.name, each.plugins) for each in config.listeners] == [
        ("mobile/in", ("mobile/limit",)),
        ("web/in", ()),
    ]
    assert [(each.name, each.upstream, each.listeners, each.plugins) for each in config.routes] == [
        ("mobile/orders", "orders", ("mobile/in",), ()),
        ("mobile/own", "mobile/bff", ("mobile/in",), ()),
        ("web/orders", "orders", ("web/in",), ("web/limit",)),
        ("web/own", "web/bff", ("web/in",), ()),
    ]
    assert {name: one.name for name, one in config.upstreams.items()} == {
        name: name for name in ("orders", "mobile/bff", "web/bff")
    }
    assert {name: one.rate.count for name, one in config.plugins.items()} == {  # type: ignore[union-attr]
        "mobile/limit": 1,
        "web/limit": 2,
    }
    assert (config.server.zone, config.source) == ("z", "mobile.toml")
    assert config.sources.roots == ("mobile.toml", "web.toml")
    assert load_sources(config.sources).config == config


def test_what_plugins_name_is_named_anew(folder: Path) -> None:
    two(folder)
    asks = '[plugins.ask]\nuse = "forward-auth"\nupstream = "{}"\n'
    either = '[plugins.either]\nuse = "any-of"\nplugins = ["ask", "shared"]\n'
    extra = asks.format("bff") + asks.format("orders").replace("ask", "shared", 1) + either
    write({"mobile.toml": Path("mobile.toml").read_text() + extra})
    plugins = load("mobile.toml", "web.toml").config.plugins
    found = {name: one.config for name, one in plugins.items() if isinstance(one, model.PluginUse)}
    assert found["mobile/ask"].upstream == "mobile/bff"
    assert found["mobile/shared"].upstream == "orders"
    assert found["mobile/either"].plugins == ("mobile/ask", "mobile/shared")


def test_what_does_not_go_together_names_both_places(folder: Path) -> None:
    two(folder)
    write(
        {
            "web.toml": Path("web.toml").read_text().replace("8082", "8081").replace("shared", "other"),
            "other.toml": upstream("orders", 9009) + "[server]\n",
        }
    )
    assert errors_of("mobile.toml", "web.toml") == [
        "other.toml:3:2: [server] is the process' own, and written twice; "
        "the other stands at shared.toml:3:2; both may include it from one file",
        'web.toml:4:8: bind: listener "in" already has "127.0.0.1:8081"; it stands at mobile.toml:2:1',
        'other.toml:1:12: upstream "orders" of an included file is shared, and defined twice; '
        "the other stands at shared.toml:1:12; rename one, or include one file in both",
    ]
    write({"more/web.toml": LISTENER + '[[routes]]\nname = "a"\nrespond = {}\n'})
    [same] = errors_of("web.toml", "more/web.toml")
    assert same == (
        'more/web.toml: its names would begin with "web/", as those of web.toml; '
        "give one of the files another name"
    )


def test_errors_of_each_file_are_told_once_and_all(folder: Path) -> None:
    two(folder)
    write({"shared.toml": upstream("orders") + "[server]\nzone = 7\n"})
    write({"web.toml": Path("web.toml").read_text() + "[sever]\n"})
    found = errors_of("mobile.toml", "web.toml", "none.toml")
    assert [line.split(": ")[0] for line in found] == ["shared.toml:4:8", "web.toml:20:2", "none.toml"]
