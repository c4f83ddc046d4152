"""Write a package with a plugin, its test and what installs it, in a new directory.

Exit code 0: written; 1: the directory is there already, or cannot be written; 2: a name that cannot be one.
"""

from __future__ import annotations

import argparse
import keyword
import re
import sys
from pathlib import Path
from string import Template


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help='as the configuration will name it: use = "NAME"')
    parser.add_argument(
        "--dir", metavar="D", default=".", help="where the package's directory is made (default: here)"
    )


def main(args: argparse.Namespace) -> int:
    wrong = _wrong_name(args.name)
    if wrong:
        print(f"fastgate new-plugin: {wrong}", file=sys.stderr)
        return 2
    folder = Path(args.dir) / args.name
    try:
        write(args.name, folder)
    except FileExistsError:
        print(f"fastgate new-plugin: {folder} is there already", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"fastgate new-plugin: {folder}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{folder} is written. Its test, once it is installed:\n")
    print(f"    cd {folder}\n    pip install -e '.[dev]'\n    python -m pytest")
    return 0


def _wrong_name(name: str) -> str:
    from fastgate.config.plugin_types import BUILT_IN

    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        return f'{name!r}: a name is of small letters, digits and single hyphens, as in "my-plugin"'
    module = name.replace("-", "_")
    if name in BUILT_IN or name in ("rate-limit", "ip-filter"):
        return f"{name!r} is a plugin that ships with fastgate"
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module == "fastgate":
        return f"{name!r} would hide a module of that name"
    return ""


def write(name: str, folder: Path) -> None:
    """The package of the plugin ``name``. Raises FileExistsError where ``folder`` is there already."""
    module = name.replace("-", "_")
    words = {
        "name": name,
        "module": module,
        "plugin": "".join(part.capitalize() for part in name.split("-")),
    }
    folder.mkdir(parents=True)
    for path, text in _FILES.items():
        file = folder / Template(path).substitute(words)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(Template(text).substitute(words))


_PYPROJECT = """\
[build-system]
requires = ["setuptools>=65.5"]
build-backend = "setuptools.build_meta"

[project]
name = "$name"
version = "0.1.0"
description = "A plugin of the API gateway fastgate"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["fastgate"]

[project.optional-dependencies]
dev = ["mypy>=1.11", "pytest>=8", "ruff>=0.6"]

# By this name configurations use it.
[project.entry-points."fastgate.plugins"]
$name = "$module:$plugin"

[tool.setuptools.package-data]
$module = ["py.typed"]

[tool.pytest.ini_options]
pythonpath = ["src"]
testpaths = ["tests"]

[tool.mypy]
strict = true
files = ["src", "tests"]
mypy_path = "src"

[tool.ruff]
line-length = 100

[tool.ruff.lint]
select = ["E", "F", "I", "UP", "B", "ASYNC"]
"""

_PLUGIN = '''\
"""The plugin $name of the API gateway fastgate."""

from __future__ import annotations

from typing import Annotated

from fastgate.plugins import Exchange, Plugin, PluginConfig, Response, doc

__all__ = ["$plugin"]


class $plugin(Plugin):
    """Tells the service a greeting, and the client that it did."""

    class Config(PluginConfig):
        greeting: Annotated[str, doc("What is told.", "header-value")] = "hello"
        refuse: Annotated[tuple[str, ...], doc("Methods that are refused.", "method")] = ()

    config: Config

    async def on_request(self, exchange: Exchange) -> Response | None:
        if exchange.request.method in self.config.refuse:
            return Response(405, json={"error": "this method is refused"})
        exchange.request.headers["x-greeting"] = self.config.greeting
        return None

    def on_response(self, exchange: Exchange, response: Response) -> None:
        response.headers["x-greeted-by"] = self.name
'''

_TEST = '''\
"""The plugin in a gateway that runs in this process, before a fake upstream."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from fastgate import ConfigError
from fastgate.testing import SyncGatewayUnderTest

from $module import $plugin

Run = Callable[..., AbstractContextManager[SyncGatewayUnderTest]]


def gateway(**keys: Any) -> dict[str, Any]:
    """A configuration, as its TOML file would have it; ``keys``: those of the plugin's table."""
    return {
        "listeners": [{"bind": "127.0.0.1:0"}],
        "upstreams": {"service": {"endpoints": ["127.0.0.1:9000"]}},
        "routes": [{"name": "all", "upstream": "service", "plugins": ["mine"]}],
        "plugins": {"mine": {"use": "$module:$plugin", **keys}},
    }


def test_the_service_is_greeted(fastgate_gateway_sync: Run) -> None:
    with fastgate_gateway_sync(gateway(greeting="good day")) as running:
        running.upstream("service").reply(200, json={"ok": True})
        answer = running.get("/", headers={"x-greeting": "forged"})
        assert answer.status == 200
        assert answer.headers["x-greeted-by"] == "mine"
        [seen] = running.upstream("service").requests
        assert seen.headers.get_all("x-greeting") == ["good day"]


def test_a_method_is_refused(fastgate_gateway_sync: Run) -> None:
    with fastgate_gateway_sync(gateway(refuse=["DELETE"])) as running:
        assert running.delete("/").status == 405
        assert running.upstream("service").requests == []


def test_a_key_that_it_does_not_have(fastgate_gateway_sync: Run) -> None:
    with (
        pytest.raises(ConfigError, match="unknown key"),
        fastgate_gateway_sync(gateway(greetings="hi")),
    ):
        pass


def test_its_configuration() -> None:
    assert $plugin.Config().greeting == "hello"
'''

_README = """\
# $name

A plugin of the API gateway fastgate. It tells the service a greeting in `X-Greeting`.

```toml
[[routes]]
name = "orders"
upstream = "orders"
plugins = ["greet"]

[plugins.greet]
use = "$name"          # once this package is installed; "./path/to/file.py" works without
greeting = "good day"
refuse = ["TRACE"]
```

    pip install -e '.[dev]'
    python -m pytest
    python -m ruff check . && python -m mypy

`src/$module/__init__.py` is the plugin, `tests/test_$module.py` its test. The keys of its table are the
fields of `Config`; `fastgate check` tells mistakes in them with line and column. While you work on it,
`fastgate reload` takes changed code with the configuration.
"""

_FILES = {
    "pyproject.toml": _PYPROJECT,
    "README.md": _README,
    "src/$module/__init__.py": _PLUGIN,
    "src/$module/py.typed": "",
    "tests/conftest.py": '"""The fixtures of fastgate."""\n\npytest_plugins = ["fastgate.testing"]\n',
    "tests/test_$module.py": _TEST,
}
