"""The operations of an OpenAPI document (3.0, 3.1), with everything that is checked compiled beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from fastgate.plugins.request_validation.parameters import Parameter, Types, style_of
from fastgate.plugins.request_validation.schemas import Schema, registry_of, schema_at

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch")
MAX_REFERENCES: Final = 32
MAX_TYPE_DEPTH: Final = 8
# OpenAPI 3.1 4.8.12.1: these are described elsewhere.
_NOT_PARAMETERS: Final = frozenset({"accept", "content-type", "authorization"})


class MediaType(NamedTuple):
    """One way to write a body. range: in lower case, such as "application/json" or "image/*"."""

    range: str
    schema: Schema | None
    types: Types


class Operation(NamedTuple):
    name: str
    parameters: tuple[Parameter, ...]
    media: tuple[MediaType, ...]
    body_required: bool


class _Segment(NamedTuple):
    """One of a path template: text before and after its only {name}; name "" where there is none."""

    before: str
    name: str
    after: str

    @property
    def rank(self) -> tuple[bool, int]:
        return bool(self.name), -len(self.before + self.after)

    def read(self, text: str) -> str | None:
        """The value of the name, "" for none; None where the segment is another."""
        if not self.name:
            return "" if text == self.before else None
        end = len(text) - len(self.after)
        fits = text.startswith(self.before) and text.endswith(self.after) and end > len(self.before)
        return text[len(self.before) : end] if fits else None


class Path(NamedTuple):
    segments: tuple[_Segment, ...]
    operations: dict[str, Operation]


class Match(NamedTuple):
    """operation: None where the path is known and the method is not. values: of the path, not decoded."""

    operation: Operation | None
    values: dict[str, str]
    methods: tuple[str, ...]


class OpenApi:
    """A document. base_path: what stands before its paths; None: as its first server says. Raises
    ValueError."""

    def __init__(self, document: Any, base_path: str | None = None) -> None:
        version = document.get("openapi") if isinstance(document, dict) else None
        if not isinstance(version, str) or not version.startswith(("3.0.", "3.1.")):
            raise ValueError('no OpenAPI document of version 3.0 or 3.1: see its key "openapi"')
        self._document = _from_3_0(document) if version.startswith("3.0.") else document
        self._registry = registry_of(self._document)
        self.base_path = (_server_path(document) if base_path is None else base_path).rstrip("/")
        self._paths: dict[int, list[Path]] = {}
        for template, _ in _items(self._document, "paths"):
            path = self._path(template, f"/paths/{_escaped(template)}")
            self._paths.setdefault(len(path.segments), []).append(path)
        for paths in self._paths.values():
            # OpenAPI 3.1 4.8.8.2: concrete ones before templated ones; what says more before what says less.
            paths.sort(key=lambda path: [one.rank for one in path.segments])

    def find(self, method: str, path: str) -> Match | None:
        """What a request asks for; path: in normal form. None: no path of the document is like it."""
        if not path.startswith(self.base_path + "/"):
            return None
        parts = path[len(self.base_path) + 1 :].split("/")
        for candidate in self._paths.get(len(parts), ()):
            values = {}
            for segment, part in zip(candidate.segments, parts, strict=True):
                value = segment.read(part if segment.name else unquote(part))
                if value is None:
                    break
                values[segment.name] = value
            else:
                operations = candidate.operations
                found = operations.get(method) or (operations.get("GET") if method == "HEAD" else None)
                return Match(found, values, tuple(operations))
        return None

    # -- from the document

    def _resolve(self, pointer: str) -> tuple[str, Any]:
        """What stands at a pointer, references followed: (its own pointer, it). Raises ValueError."""
        for _ in range(MAX_REFERENCES):
            node = self._document
            for token in pointer.split("/")[1:]:
                key = token.replace("~1", "/").replace("~0", "~")
                try:
                    node = node[int(key)] if isinstance(node, list) else node[key]
                except (KeyError, IndexError, ValueError, TypeError):
                    raise ValueError(f"{pointer} is not in the document") from None
            if not (isinstance(node, dict) and isinstance(node.get("$ref"), str)):
                return pointer, node
            reference = node["$ref"]
            if not reference.startswith("#/"):
                raise ValueError(
                    f"{pointer}: only references within the document are followed, not {reference}"
                )
            pointer = unquote(reference[1:])
        raise ValueError(f"{pointer}: references go in a circle")

    def _path(self, template: str, pointer: str) -> Path:
        if not template.startswith("/"):
            raise ValueError(f"paths: {template} does not begin with a slash")
        segments = tuple(_segment(text, template) for text in template[1:].split("/"))
        pointer, item = self._resolve(pointer)
        operations = {}
        for method in METHODS:
            if method in item:
                name = f"{method.upper()} {template}"
                shared, own = f"{pointer}/parameters", f"{pointer}/{method}/parameters"
                found = {one[:2]: one for where in (shared, own) for one in self._parameters(where, name)}
                operations[method.upper()] = self._operation(
                    name, f"{pointer}/{method}", tuple(found.values())
                )
        return Path(segments, operations)

    def _operation(self, name: str, pointer: str, parameters: tuple[Parameter, ...]) -> Operation:
        _, operation = self._resolve(pointer)
        if "requestBody" not in operation:
            return Operation(name, parameters, (), False)
        pointer, body = self._resolve(f"{pointer}/requestBody")
        media = []
        for text, content in _items(body, "content"):
            at = f"{pointer}/content/{_escaped(text)}/schema"
            has_schema = isinstance(content, dict) and "schema" in content
            media.append(
                MediaType(
                    text.partition(";")[0].strip().lower(),
                    schema_at(self._registry, at) if has_schema else None,
                    self._types(at) if has_schema else Types(frozenset()),
                )
            )
        return Operation(name, parameters, tuple(media), body.get("required") is True)

    def _parameters(self, pointer: str, name: str) -> Iterator[Parameter]:
        parent, _, _ = pointer.rpartition("/")
        for at in range(len(self._resolve(parent)[1].get("parameters", []))):
            own, node = self._resolve(f"{pointer}/{at}")
            place = node.get("in")
            if place not in ("path", "query", "header", "cookie") or not isinstance(node.get("name"), str):
                raise ValueError(f"{name}: {own} is no parameter")
            if place == "header" and node["name"].lower() in _NOT_PARAMETERS:
                continue
            contents = [text for text, _ in _items(node, "content")]
            where = f"{own}/content/{_escaped(contents[0])}/schema" if contents else f"{own}/schema"
            try:
                style = style_of(place, node.get("style", ""))
            except ValueError as error:
                raise ValueError(f"{name}: parameter {node['name']}: {error}") from None
            yield Parameter(
                node["name"],
                place,
                place == "path" or node.get("required") is True,
                style,
                node.get("explode", style == "form") is True,
                self._types(where),
                schema_at(self._registry, where),
                bool(contents),
            )

    def _types(self, pointer: str, depth: int = 0) -> Types:
        """The types that a schema names, with those that ``allOf`` and its kin add."""
        pointer, node = self._resolve(pointer)
        if not isinstance(node, dict) or depth > MAX_TYPE_DEPTH:
            return Types(frozenset())
        own = node.get("type", [])
        names = set([own] if isinstance(own, str) else own)
        properties: dict[str, Types] = {}
        items = self._types(f"{pointer}/items", depth + 1) if "items" in node else None
        for key in ("allOf", "anyOf", "oneOf"):
            for at in range(len(node.get(key, []))):
                part = self._types(f"{pointer}/{key}/{at}", depth + 1)
                names |= part.names
                properties |= part.properties
                items = items or part.items
        for key, _ in _items(node, "properties"):
            properties[key] = self._types(f"{pointer}/properties/{_escaped(key)}", depth + 1)
        return Types(frozenset(names), items, properties)


def _items(node: Any, key: str) -> list[tuple[str, Any]]:
    table = node.get(key) if isinstance(node, dict) else None
    return list(table.items()) if isinstance(table, dict) else []


def _escaped(token: str) -> str:
    return token.replace("~", "~0").replace("/", "~1")


def _segment(text: str, template: str) -> _Segment:
    before, brace, rest = text.partition("{")
    if not brace:
        return _Segment(unquote(text), "", "")
    name, brace, after = rest.partition("}")
    if not brace or not name or "{" in after:
        # Two names in one segment have no unambiguous match.
        raise ValueError(f"paths: {template}: a segment holds at most one {{name}}")
    return _Segment(before, name, after)


def _server_path(document: dict[str, Any]) -> str:
    servers = document.get("servers")
    first = servers[0] if isinstance(servers, list) and servers else {}
    url = first.get("url", "/") if isinstance(first, dict) else "/"
    for name, variable in _items(first, "variables"):
        if isinstance(variable, dict):
            url = url.replace(f"{{{name}}}", str(variable.get("default", "")))
    return urlsplit(url).path


def _from_3_0(node: Any) -> Any:
    """A document of 3.0 with its schemas as JSON Schema 2020-12 has them (OpenAPI 3.0.3 4.7.24)."""
    if isinstance(node, list):
        return [_from_3_0(child) for child in node]
    if not isinstance(node, dict):
        return node
    if isinstance(node.get("$ref"), str):
        return {"$ref": node["$ref"]}  # what stands beside it counts for nothing there
    fresh = {key: _from_3_0(value) for key, value in node.items()}
    if fresh.get("nullable") is True and isinstance(fresh.get("type"), str):
        fresh["type"] = [fresh["type"], "null"]
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(fresh.get(exclusive), bool) and fresh.pop(exclusive) and bound in fresh:
            fresh[exclusive] = fresh.pop(bound)
    properties = fresh.get("properties")
    if isinstance(properties, dict) and isinstance(fresh.get("required"), list):
        # Required of answers alone.
        read_only = {
            name for name, one in properties.items() if isinstance(one, dict) and one.get("readOnly") is True
        }
        fresh["required"] = [name for name in fresh["required"] if name not in read_only]
    return fresh
