"""From ``use`` to the class of a plugin in Python: by name, by entry point, by module, by file.

Nothing of ``fastgate.plugins`` is imported here but what a configuration names, when it is checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fastgate.config.plugin_code import imported, module_of_file, module_of_name
from fastgate.config.problems import did_you_mean, either, quote
from fastgate.config.units import BadValue

if TYPE_CHECKING:
    from fastgate.plugins import Plugin

GROUP: Final = "fastgate.plugins"

# Those that ship: name -> "module:Class". "rate-limit" and "ip-filter" are native and not among them.
BUILT_IN: Final[dict[str, str]] = {
    "acl": "fastgate.plugins.acl:Acl",
    "any-of": "fastgate.plugins.any_of:AnyOf",
    "api-key": "fastgate.plugins.api_key:ApiKey",
    "basic": "fastgate.plugins.basic:Basic",
    "bot": "fastgate.plugins.bot:Bot",
    "cors": "fastgate.plugins.cors:Cors",
    "csrf": "fastgate.plugins.csrf:Csrf",
    "forward-auth": "fastgate.plugins.forward_auth:ForwardAuth",
    "geoip": "fastgate.plugins.geoip:GeoIp",
    "hmac": "fastgate.plugins.hmac_signature:HmacSignature",
    "jwt": "fastgate.plugins.jwt:Jwt",
    "maintenance": "fastgate.plugins.maintenance:Maintenance",
    "mtls": "fastgate.plugins.mtls:Mtls",
    "oauth2-introspection": "fastgate.plugins.introspection:Introspection",
    "oidc": "fastgate.plugins.oidc:Oidc",
    "request-validation": "fastgate.plugins.request_validation:RequestValidation",
    "security-headers": "fastgate.plugins.security_headers:SecurityHeaders",
    "size": "fastgate.plugins.size:Size",
    "transform": "fastgate.plugins.transform:Transform",
}

# What those need that a plain installation lacks: they import it when they are provisioned, which is late to
# learn of it.
_NEEDS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "jwt": ("auth", ("joserfc",)),
    "oidc": ("auth", ("joserfc", "cryptography", "httpx")),
    "oauth2-introspection": ("auth", ("httpx",)),
    "basic": ("auth", ("argon2", "bcrypt")),
    "hmac": ("auth", ("cryptography",)),
    "mtls": ("auth", ("cryptography",)),
    "geoip": ("geoip", ("maxminddb",)),
    "request-validation": ("validation", ("jsonschema_rs", "yaml")),
}

_FILE: Final = re.compile(r"(.+\.py)(?::([^:]*))?")
_MODULE: Final = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


class Found(NamedTuple):
    """``version``: digest of the source of the class, empty for those that ship and where there is none."""

    plugin: type[Plugin]
    version: str


def built_in(use: str) -> type[Plugin]:
    """A plugin that ships. Raises BadValue where what it needs is not installed."""
    extra, needed = _NEEDS.get(use, ("", ()))
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise BadValue(
            f"{quote(use)} needs {either(missing, 'and')}, not installed here",
            f"pip install 'fastgate[{extra}]'",
        )
    module, _, name = BUILT_IN[use].partition(":")
    return _class(imported(module), name, module)


def installed() -> tuple[EntryPoint, ...]:
    """What installed packages offer."""
    return tuple(entry_points(group=GROUP))


class PluginSource:
    """Where plugins come from. given: classes of the program that embeds the gateway, by what ``use`` calls
    them; they come first."""

    def __init__(self, given: Mapping[str, type[Plugin]] = {}) -> None:  # not changed
        self._given = given

    def find(self, use: str, folder: Path) -> Found:
        """The class that ``use`` means. Raises BadValue with what is wrong; a plugin's code is executed.

        folder: of the file that says so. Files are relative to it, and modules are looked up there as well,
        after all others."""
        if use in self._given:
            return Found(self._given[use], "")
        file = _FILE.fullmatch(use)
        if file:
            if not file[1].startswith(("./", "../", "/")):
                raise BadValue(
                    f"a file begins with ./, got {quote(use)}", f"did you mean {quote('./' + use)}?"
                )
            module, version = module_of_file(file[1], folder)
            return self._at_home(_class(module, file[2], file[1]), module, version, folder)
        if use in BUILT_IN:
            return Found(built_in(use), "")
        if ":" in use:
            named = _MODULE.fullmatch(use)
            if not named:
                raise BadValue(f'expected a name, "module:Class" or "./file.py", got {quote(use)}')
            module, version = module_of_name(named[1], folder)
            return self._at_home(_class(module, named[2], named[1]), module, version, folder)
        return self._installed(use, folder)

    def _installed(self, use: str, folder: Path) -> Found:
        offered = installed()
        points = {point.value: point for point in offered if point.name == use}
        if not points:
            known = dict.fromkeys(
                ["rate-limit", "ip-filter", *self._given, *BUILT_IN, *(point.name for point in offered)]
            )
            hint = did_you_mean(use, known) or f"there is {either(sorted(known), 'and')}"
            raise BadValue(f"no plugin is named {quote(use)}", hint)
        if len(points) > 1:
            packages = either(map(_package, points.values()), "and")
            raise BadValue(f"several packages offer a plugin named {quote(use)}: {packages}")
        [point] = points.values()
        module, version = module_of_name(point.module, folder)
        plugin = _class(module, point.attr, f"{point.module} of {_package(point)}")
        return self._at_home(plugin, module, version, folder)

    def _at_home(self, plugin: type[Plugin], module: ModuleType, version: str, folder: Path) -> Found:
        """A class that ``module`` only imports is taken from where it is written: that source may change."""
        if plugin.__module__ == module.__name__ or "<locals>" in plugin.__qualname__:
            return Found(plugin, version)
        home, version = module_of_name(plugin.__module__, folder)
        return Found(_class(home, plugin.__qualname__, plugin.__module__), version)


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "a package without a name"


def _class(module: ModuleType, name: str | None, where: str) -> type[Plugin]:
    """``name`` in ``module``, or its only plugin where no name is given."""
    # Imported here, since a configuration without plugins in Python needs nothing of it.
    from fastgate.plugins import Plugin

    here: dict[str, type[Plugin]] = {
        value.__name__: value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Plugin) and value.__module__ == module.__name__
    }
    if not name:
        public = [one for one in here if not one.startswith("_")]
        if len(public) == 1:
            return here[public[0]]
        if not public:
            raise BadValue(f"{quote(where)} defines no plugin: no class in it is a fastgate.plugins.Plugin")
        raise BadValue(
            f"{quote(where)} defines several plugins",
            f"say which: {either(f'{where}:{one}' for one in public)}",
        )
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise BadValue(f"{quote(where)} has no class {quote(name)}", did_you_mean(name, here))
    if not (isinstance(found, type) and issubclass(found, Plugin)) or found is Plugin:
        raise BadValue(
            f"{quote(name)} of {quote(where)} is no plugin: it must subclass fastgate.plugins.Plugin"
        )
    return found
