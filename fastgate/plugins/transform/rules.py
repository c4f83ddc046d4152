"""Changes to header fields and query parameters."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import quote, unquote_plus

from msgspec import field

from fastgate.plugins import Exchange, Headers, PluginConfig, Request, doc
from fastgate.plugins.transform.templates import Template, TemplateError, TooLongError

MAX_PARAMETERS: Final = 1000

_VALUES: Final = "Values may hold `{consumer}` and other placeholders."


class HeaderRules(PluginConfig):
    """Changes to header fields, in this order: remove, rename, set, add."""

    remove: Annotated[tuple[str, ...], doc("Fields to take out.", "set-header-name", one_or_many=True)] = ()
    rename: Annotated[
        dict[str, str],
        doc(
            "Fields to give another name, with all their values.", "set-header-name", names="set-header-name"
        ),
    ] = field(default_factory=dict)
    set: Annotated[
        dict[str, str],
        doc(
            f"Fields to set to one value, whatever was there. {_VALUES} A value that comes out empty removes "
            "the field.",
            "header-value",
            names="set-header-name",
        ),
    ] = field(default_factory=dict)
    add: Annotated[
        dict[str, str],
        doc(f"Fields to add beside those of that name. {_VALUES}", "header-value", names="set-header-name"),
    ] = field(default_factory=dict)


class QueryRules(PluginConfig):
    """Changes to query parameters, in this order: remove, rename, set, add."""

    remove: Annotated[tuple[str, ...], doc("Parameters to take out.", "query-name", one_or_many=True)] = ()
    rename: Annotated[
        dict[str, str], doc("Parameters to give another name.", "query-name", names="query-name")
    ] = field(default_factory=dict)
    set: Annotated[dict[str, str], doc(f"Parameters to set to one value. {_VALUES}", names="query-name")] = (
        field(default_factory=dict)
    )
    add: Annotated[dict[str, str], doc(f"Parameters to add. {_VALUES}", names="query-name")] = field(
        default_factory=dict
    )


class HeaderChange:
    """HeaderRules, ready."""

    def __init__(self, rules: HeaderRules) -> None:
        self._rules = rules
        self._set = [(name, Template(value)) for name, value in rules.set.items()]
        self._add = [(name, Template(value)) for name, value in rules.add.items()]

    def apply(self, headers: Headers, exchange: Exchange) -> None:
        # All values first: they tell of the message as it came.
        set_to = [(name, template(exchange)) for name, template in self._set]
        added = [(name, template(exchange)) for name, template in self._add]
        for name in self._rules.remove:
            del headers[name]
        for name, other in self._rules.rename.items():
            values = headers.get_all(name)
            if values:
                del headers[name]
                del headers[other]
                for value in values:
                    headers.add(other, value)
        for name, value in set_to:
            if value.strip():
                headers[name] = value
            else:
                del headers[name]
        for name, value in added:
            if value.strip():
                headers.add(name, value)


class QueryChange:
    """QueryRules, ready. What no rule names stays as it came, byte by byte."""

    def __init__(self, rules: QueryRules) -> None:
        self._rules = rules
        self._set = [(name, Template(value)) for name, value in rules.set.items()]
        self._add = [(name, Template(value)) for name, value in rules.add.items()]
        self._needed = bool(rules.remove or rules.rename or rules.set or rules.add)
        self._gone = frozenset(rules.remove) | frozenset(rules.set)

    def apply(self, request: Request, exchange: Exchange) -> None:
        if not self._needed:
            return
        raw = request.raw_query
        if raw.count("&") >= MAX_PARAMETERS:
            raise TooLongError(f"more than {MAX_PARAMETERS} query parameters")
        kept = []
        for part in raw.split("&") if raw else []:
            key, equals, value = part.partition("=")
            name = unquote_plus(key)
            if name in self._rules.rename:
                name = self._rules.rename[name]
                part = f"{quote(name, safe='')}{equals}{value}"
            elif name in self._gone:
                continue
            kept.append(part)
        for name, template in (*self._set, *self._add):
            kept.append(f"{quote(name, safe='')}={quote(template(exchange), safe='')}")
        request.raw_query = "&".join(kept)


def bad_headers(where: str, rules: HeaderRules) -> dict[str, str]:
    wrong = {}
    probe = Headers()
    names = [f"remove.{at}" for at in range(len(rules.remove))]
    for key, name in [
        *zip(names, rules.remove, strict=True),
        *((f"rename.{a}", b) for a, b in rules.rename.items()),
    ]:
        if not _settable(probe, name):
            wrong[f"{where}.{key}"] = f"{name} is set by the gateway itself"
    for kind, table in (("set", rules.set), ("add", rules.add), ("rename", rules.rename)):
        for name, value in table.items():
            if not _settable(probe, name):
                wrong[f"{where}.{kind}.{name}"] = f"{name} is set by the gateway itself"
            elif kind != "rename" and (bad := bad_template(value)):
                wrong[f"{where}.{kind}.{name}"] = bad
    return wrong


def _settable(probe: Headers, name: str) -> bool:
    try:
        probe[name] = "x"
    except ValueError:
        return False
    return True


def bad_template(text: str) -> str:
    try:
        Template(text)
    except TemplateError as error:
        return str(error)
    return ""
