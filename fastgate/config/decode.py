"""From parsed TOML to the model: one walk that goes on after each error, so that all are told at once.

A value that is wrong is reported and replaced by its default, or by None where it has none; the rules that
look at several values (rules.py, shadow.py) ask ``Problems.failed`` before they trust one.
"""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from fastgate.config import model, reflect
from fastgate.config.addresses import Address
from fastgate.config.forms import FORMS
from fastgate.config.problems import Path, Problems, did_you_mean, either, quote
from fastgate.config.secrets import SecretSource
from fastgate.config.texts import parse_header_name
from fastgate.config.units import BadValue, split_quota


class _Bad:
    """Stands for a value that was reported."""


BAD = _Bad()

_ARRAYS_OF_TABLES = ("listeners", "routes")
_TABLES_BY_NAME = ("upstreams", "plugins")


def label_of(path: Path) -> str:
    """A key path as the user writes it, without the listener, route, upstream or plugin it stands in."""
    if len(path) > 2 and path[0] in (*_ARRAYS_OF_TABLES, *_TABLES_BY_NAME):
        path = path[2:]
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            plain = part.replace("-", "").replace("_", "").isalnum() and part.isascii()
            out += ("." if out else "") + (part if plain else quote(part))
    return out


def table_label(path: Path) -> str:
    """How the table at ``path`` is written: ``[[routes]]``, ``[upstreams.x]``, or an inline table's key."""
    if not path:
        return "the file"
    if len(path) == 2 and path[0] in _ARRAYS_OF_TABLES:
        return f"[[{path[0]}]]"
    if len(path) <= 2 and path[0] not in _ARRAYS_OF_TABLES and not isinstance(path[-1], int):
        return f"[{label_of(path[:1])}{'.' + label_of(path[1:]) if path[1:] else ''}]"
    return f"`{label_of(path)}`"


def describe(value: object) -> str:
    """A TOML value as an error names it."""
    if isinstance(value, str):
        return f"the string {quote(value)}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"the integer {value}" if abs(value) < 10**18 else "a very large integer"
    if isinstance(value, float):
        return f"the float {value}"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, (datetime.date, datetime.time)):
        return "a date or time"
    return type(value).__name__


class Decoder:
    """Builds one struct from one parsed table, reporting to ``problems``."""

    def __init__(self, problems: Problems, secrets: SecretSource) -> None:
        self._problems = problems
        self._secrets = secrets

    def table(self, cls: type[Any], value: object, path: Path) -> Any:
        """An instance of ``cls``, or BAD."""
        if not isinstance(value, dict):
            self._problems.error(path, f"{label_of(path)}: expected a table, got {describe(value)}")
            return BAD
        return self._struct(cls, value, path, skip="")

    def _struct(self, cls: type[Any], value: dict[str, Any], path: Path, skip: str) -> Any:
        return self._made(cls, self._fields(reflect.keys_of(cls), value, path, skip), path)

    def _made(self, cls: type[Any], fields: dict[str, Any], path: Path) -> Any:
        complete = _COMPLETE.get(cls)
        if complete:
            complete(fields, path, self._problems)
        return cls(**fields)

    def _fields(
        self, keys: Mapping[str, reflect.Key], value: dict[str, Any], path: Path, skip: str = ""
    ) -> dict[str, Any]:
        """A value for each of ``keys``; ``skip`` is one more key that may stand there."""
        fields: dict[str, Any] = {}
        for name, item in value.items():
            key = keys.get(name)
            if key:
                fields[name] = self._node(key.node, item, (*path, name))
            elif name != skip:
                self._unknown_key(name, [*keys, *([skip] if skip else [])], path)
        for key in keys.values():
            if key.required and key.name not in value:
                self._problems.error(path, f"{table_label(path)} needs the key {quote(key.name)}")
                self._problems.mark((*path, key.name))
            if fields.get(key.name, BAD) is BAD:
                fields[key.name] = None if key.required else key.default
        return fields

    def _unknown_key(self, name: str, known: list[str], path: Path) -> None:
        where = f"in {table_label(path)}" if path else "at the top of the file"
        hint = did_you_mean(name, known)
        if not hint:
            hint = f"its keys are {either(sorted(known), 'and')}"
        self._problems.error((*path, name), f"unknown key {quote(name)} {where}", hint, at_key=True)

    def _node(self, node: reflect.Node, value: object, path: Path) -> Any:
        match node:
            case reflect.Table(_, _, True) if value is False:
                return None
            case reflect.Table(cls, _, True) if value is True:
                return self._struct(cls, {}, path, skip="")
            case reflect.Table(_, _, True) if not isinstance(value, dict):
                self._problems.error(
                    path, f"{label_of(path)}: expected true, false or a table, got {describe(value)}"
                )
                return BAD
            case reflect.Table(cls, shorthand):
                if shorthand and isinstance(value, str):
                    return self._shorthand(cls, shorthand, value, path)
                return self.table(cls, value, path)
            case reflect.Many():
                return self._many(node, value, path)
            case reflect.Mapping():
                return self._mapping(node, value, path)
            case reflect.Tagged():
                return self._tagged(node, value, path)
            case reflect.Scalar():
                return self._scalar(node, value, path)
            case reflect.ConditionNode():
                return self._condition(value, path)
            case _:
                return self._plain(node, value, path)

    def _shorthand(self, cls: type[Any], key: str, value: str, path: Path) -> Any:
        text = self._node(reflect.keys_of(cls)[key].node, value, path)
        if text is BAD:
            return BAD
        fields: dict[str, Any] = {k.name: k.default for k in reflect.keys_of(cls).values()}
        return self._made(cls, fields | {key: text}, path)

    def _many(self, node: reflect.Many, value: object, path: Path) -> Any:
        if node.one_or_many and not isinstance(value, list):
            item = self._node(node.item, value, path)
            return BAD if item is BAD else (item,)
        if not isinstance(value, list):
            self._not_an_array(node, value, path)
            return BAD
        if len(value) < node.least:
            self._problems.error(path, f"{label_of(path)} must not be empty")
            return BAD
        items = [self._node(node.item, item, (*path, i)) for i, item in enumerate(value)]
        kept = tuple(item for item in items if item is not BAD)
        if not isinstance(node.item, reflect.Table | reflect.Tagged | reflect.Mapping | reflect.Many):
            for i, item in enumerate(items):
                if item is not BAD and item in items[:i]:
                    written = quote(value[i]) if isinstance(value[i], str) else str(value[i])
                    self._problems.warning((*path, i), f"{label_of(path)}: {written} is listed twice")
            kept = tuple(dict.fromkeys(kept))
        return kept

    def _not_an_array(self, node: reflect.Many, value: object, path: Path) -> None:
        if len(path) == 1 and path[0] in _ARRAYS_OF_TABLES:
            self._problems.error(
                path, f"{path[0]} is an array of tables, got {describe(value)}", f"write [[{path[0]}]]"
            )
            return
        hint = ""
        if isinstance(value, str):
            hint = f"did you mean [{quote(value)}]?"
        elif isinstance(value, dict) and isinstance(node.item, reflect.Table):
            hint = "put [ ] around it"
        self._problems.error(path, f"{label_of(path)}: expected an array, got {describe(value)}", hint)

    def _mapping(self, node: reflect.Mapping, value: object, path: Path) -> Any:
        if not isinstance(value, dict):
            hint = f"write [{path[0]}.NAME]" if path[0] in _TABLES_BY_NAME and len(path) == 1 else ""
            self._problems.error(path, f"{label_of(path)}: expected a table, got {describe(value)}", hint)
            return BAD
        found: dict[str, Any] = {}
        names: dict[str, str] = {}
        for name, item in value.items():
            here = (*path, name)
            try:
                key = FORMS[node.names].parse(name, {})
            except BadValue as bad:
                self._problems.error(here, f"{label_of(path)}: {bad}", bad.hint, at_key=True)
                continue
            folded = key.lower() if node.names.endswith("header-name") else key
            if folded in names:
                self._problems.error(
                    here,
                    f"{label_of(path)}: {quote(name)} and {quote(names[folded])} are the same header",
                    at_key=True,
                )
                continue
            names[folded] = name
            decoded = self._node(node.value, item, here)
            if decoded is not BAD:
                found[key] = decoded
        return found

    def _tagged(self, node: reflect.Tagged, value: object, path: Path) -> Any:
        if not isinstance(value, dict):
            self._problems.error(path, f"{label_of(path)}: expected a table, got {describe(value)}")
            return BAD
        tag = value.get(node.tag)
        cls = node.variants.get(tag) if isinstance(tag, str) else None
        if cls:
            return self._struct(cls, value, path, skip=node.tag)
        return self._untagged(node, value, path)

    def _untagged(self, node: reflect.Tagged, value: dict[str, Any], path: Path) -> Any:
        """A table whose tag names none of the variants."""
        tag = value.get(node.tag)
        if tag is None:
            self._problems.error(
                path, f"{table_label(path)} needs the key {quote(node.tag)}: {either(node.variants)}"
            )
        else:
            got = quote(tag) if isinstance(tag, str) else describe(tag)
            self._problems.error(
                (*path, node.tag),
                f"{label_of((*path, node.tag))}: expected {either(node.variants)}, got {got}",
                did_you_mean(tag, node.variants) if isinstance(tag, str) else "",
            )
        return BAD

    def _scalar(self, node: reflect.Scalar, value: object, path: Path) -> Any:
        form = FORMS[node.form]
        if node.options.get("empty") and value == "":
            return ""
        if node.options.get("numbers") and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        secret = None
        if isinstance(value, dict) and node.options.get("secret"):
            secret = self._secrets.read(value, path, label_of(path), self._problems)
            if secret is None:
                return BAD
            value = secret.reveal()
        elif node.options.get("secret") == "only":
            hint = 'it is { env = "NAME" } or { file = "path" }'
            self._problems.error(path, f"{label_of(path)}: a secret does not stand in the file itself", hint)
            return BAD
        if not isinstance(value, str):
            message, hint = self._not_a_string(node, form.label, value)
            self._problems.error(path, f"{label_of(path)}: {message}", hint)
            return BAD
        try:
            parsed = form.parse(value, node.options)
        except BadValue as bad:
            self._problems.error(path, f"{label_of(path)}: {bad}", bad.hint)
            return BAD
        return parsed if secret is None else secret

    def _not_a_string(self, node: reflect.Scalar, label: str, value: object) -> tuple[str, str]:
        example = {"duration": '"5s"', "size": '"64KiB"', "rate": '"100/s"', "byte-rate": '"500B/s"'}.get(
            node.form
        )
        such = f" such as {example}" if example else ""
        unit = {"duration": "s", "size": "B", "rate": "/s", "byte-rate": "B/s"}.get(node.form)
        number = unit and isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15
        hint = f'did you mean "{value}{unit}"?' if number else ""
        return f"expected a string ({label}{such}), got {describe(value)}", hint

    def _condition(self, value: object, path: Path) -> Any:
        wanted = 'expected "text" (equal), true (present) or { regex = "..." }'
        if isinstance(value, str):
            return model.Condition("equal", value)
        if value is True:
            return model.Condition("present")
        if isinstance(value, dict):
            for name in value:
                if name != "regex":
                    self._unknown_key(name, ["regex"], path)
            if "regex" in value:
                regex = self._node(reflect.Scalar("regex", {}), value["regex"], (*path, "regex"))
                return BAD if regex is BAD else model.Condition("regex", regex)
            if not value:
                self._problems.error(path, f"{label_of(path)}: {wanted}, got an empty table")
            return BAD
        hint = "absence cannot be matched" if value is False else ""
        if isinstance(value, int) and not isinstance(value, bool):
            hint = f'did you mean "{value}"?'
        self._problems.error(path, f"{label_of(path)}: {wanted}, got {describe(value)}", hint)
        return BAD

    def _plain(self, node: reflect.Node, value: object, path: Path) -> Any:
        wanted = hint = ""
        match node:
            case reflect.Boolean():
                if isinstance(value, bool):
                    return value
                wanted = "true or false"
                if isinstance(value, str) and value.lower() in ("true", "false", "yes", "no", "on", "off"):
                    hint = f"did you mean {'true' if value.lower() in ('true', 'yes', 'on') else 'false'}?"
            case reflect.Integer(least, most):
                number = isinstance(value, int) and not isinstance(value, bool)
                if number and (least is None or value >= least) and (most is None or value <= most):  # type: ignore[operator]
                    return value
                wanted = f"an integer{_bounds(least, most)}"
                if isinstance(value, str) and value.isascii() and value.isdigit():
                    hint = f"did you mean {int(value[:18])}?"
            case reflect.Number(low, high):
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                if number and _within(value, low, high):  # type: ignore[arg-type]
                    return float(value)  # type: ignore[arg-type]
                wanted = f"a number{_bounds(low, high)}"
                if isinstance(value, str) and re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4})? ?%?", value):
                    hint = f"did you mean {value.rstrip(' %')}?"
            case reflect.Choice(values):
                if value in values and not isinstance(value, bool):
                    return value
                wanted = either(values)
                if isinstance(value, str):
                    hint = did_you_mean(value, (v for v in values if isinstance(v, str)))
                elif not isinstance(value, bool) and str(value) in values:
                    hint = f'did you mean "{value}"?'
            case _:
                if isinstance(value, str):
                    return value
                wanted = "a string"
        got = quote(value) if isinstance(value, str) and isinstance(node, reflect.Choice) else describe(value)
        self._problems.error(path, f"{label_of(path)}: expected {wanted}, got {got}", hint)
        return BAD


def _within(value: float, low: float | None, high: float | None) -> bool:
    # Written so that NaN and infinity fail, and integers beyond every float.
    return (
        abs(value) <= sys.float_info.max and (low is None or low <= value) and (high is None or value <= high)
    )


def _bounds(least: float | None, most: float | None) -> str:
    low, high = (None if bound is None else reflect.number_text(bound) for bound in (least, most))
    if low is not None and high is not None:
        return f" between {low} and {high}"
    if low is not None:
        return f" of at least {low}"
    return "" if high is None else f" of at most {high}"


def _complete_listener(fields: dict[str, Any], path: Path, problems: Problems) -> None:
    _split_address(fields, "bind")
    if not fields["name"] and fields["bind"]:
        fields["name"] = fields["bind"]


def _complete_listener_tls(fields: dict[str, Any], path: Path, problems: Problems) -> None:
    if isinstance(fields["redirect_from"], Address):
        fields["redirect_from"] = fields["redirect_from"].text


def _complete_admin(fields: dict[str, Any], path: Path, problems: Problems) -> None:
    _split_address(fields, "bind")


def _complete_endpoint(fields: dict[str, Any], path: Path, problems: Problems) -> None:
    _split_address(fields, "address")


def _split_address(fields: dict[str, Any], name: str) -> None:
    address = fields[name]
    if isinstance(address, Address):
        fields |= {
            name: address.text,
            "host": address.host,
            "port": address.port,
            "unix_path": address.unix_path,
        }
        if address.srv:
            fields["srv"] = address.srv
        if address.asgi:
            fields["asgi"] = address.asgi
        if address.scheme:
            fields["scheme"] = address.scheme


def _complete_upstream(fields: dict[str, Any], path: Path, problems: Problems) -> None:
    if fields["balance"] in ("maglev", "ring") and fields["hash"] is None:
        fields["hash"] = model.Hash()
    if fields["tls"] is None and any(endpoint.scheme == "https" for endpoint in fields["endpoints"]):
        fields["tls"] = model.UpstreamTls()


def _complete_split_target(fields: dict[str, Any], path: Path, problems: Problems) -> None:
    if not fields["name"] and fields["upstream"]:
        fields["name"] = fields["upstream"]


def _complete_split(fields: dict[str, Any], path: Path, problems: Problems) -> None:
    """Fills in what each arm is compared with: the heaviest other one, of equals the first."""
    targets: tuple[model.SplitTarget, ...] = fields["to"] or ()
    completed = []
    for target in targets:
        others = [other for other in targets if other is not target]
        if target.rollback is not None and not target.rollback.baseline and others:
            heaviest = max(others, key=lambda other: other.weight or 0)
            target = replace(target, rollback=replace(target.rollback, baseline=heaviest.name))
        completed.append(target)
    fields["to"] = tuple(completed)


def _complete_rate_limit(fields: dict[str, Any], path: Path, problems: Problems) -> None:
    if fields["quota"]:
        count, period = split_quota(fields["quota"])
        fields |= {"quota_count": count, "quota_period": period}
        if fields["rate"] is None:
            hours = {"hour": 1, "day": 24, "month": 30 * 24}[period]
            fields |= {"rate": model.Rate(count, hours * 3600 * 1_000_000_000), "burst": count}
    rate = fields["rate"]
    if rate is None and not problems.failed((*path, "rate")):
        problems.error(path, f"{table_label(path)} needs the key {quote('rate')}")
        problems.mark((*path, "rate"))
    if rate and not fields["burst"]:
        fields["burst"] = max(1, rate.count * 1_000_000_000 // rate.per_ns)


def _complete_match(fields: dict[str, Any], path: Path, problems: Problems) -> None:
    if "host" in fields["headers"]:
        problems.error(
            (*path, "headers", "host"),
            "match.headers: the host has its own condition",
            "use `match.host`",
            at_key=True,
        )


def _complete_respond(fields: dict[str, Any], path: Path, problems: Problems) -> None:
    for name in fields["headers"]:
        if parse_header_name(name, {}) == "content-type":
            problems.error(
                (*path, "headers", name),
                "respond.headers: Content-Type has its own key",
                "use `content_type`",
                at_key=True,
            )


_COMPLETE: dict[type[Struct], Callable[[dict[str, Any], Path, Problems], None]] = {
    model.Listener: _complete_listener,
    model.ListenerTls: _complete_listener_tls,
    model.Admin: _complete_admin,
    model.Metrics: _complete_admin,
    model.Endpoint: _complete_endpoint,
    model.ListedEndpoint: _complete_endpoint,
    model.Upstream: _complete_upstream,
    model.Split: _complete_split,
    model.SplitTarget: _complete_split_target,
    model.RateLimit: _complete_rate_limit,
    model.Match: _complete_match,
    model.Respond: _complete_respond,
}
