"""The admin API as OpenAPI 3.1, and as docs/admin-api.md: both from the table of resources and its types.

``python -m fastgate.server.admin_openapi docs/admin-api.md`` writes what follows the page's mark anew, and
a test checks that it is up to date.
"""

from __future__ import annotations

import http
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

import fastgate
from fastgate.server.admin_resources import RESOURCES
from fastgate.server.admin_types import Problem, Resource

__all__ = ["MARK", "document", "markdown"]

MARK: Final = "<!-- Below: made by `python -m fastgate.server.admin_openapi docs/admin-api.md`. -->\n"
_SCHEMAS: Final = "#/components/schemas/"

_PROBLEMS: Final = {
    400: "It can't be read.",
    401: "A token is needed, or it is wrong.",
    403: "The page of another site asks, or it is told on a Unix socket alone.",
    404: "There is nothing of this name.",
    408: "The request did not come in time.",
    409: "It can't be done as things are.",
    412: "Another configuration is in force than If-Match says.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    421: "The Host is no loopback address.",
    422: "It was understood, and can't be.",
    431: "The head is too large.",
}

# What the types can't say: how many of their members are given.
_MEMBERS: Final[dict[str, dict[str, int]]] = {
    "EndpointChange": {"minProperties": 1},
    "SplitChange": {"minProperties": 1, "maxProperties": 1},
}


def document(resources: Iterable[Resource] = RESOURCES) -> dict[str, Any]:
    """OpenAPI 3.1."""
    resources = tuple(resources)
    types = dict.fromkeys(kind for kind in _types(resources) if kind is not None)
    made, components = msgspec.json.schema_components(types, ref_template=_SCHEMAS + "{name}")
    schemas = dict(zip(types, made, strict=True))
    for name, bounds in _MEMBERS.items():
        components[name].update(bounds)
    paths: dict[str, Any] = {}
    for resource in resources:
        paths.setdefault(resource.path, {})[resource.method.lower()] = _operation(
            resource, schemas, components
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fastgate admin API",
            "version": fastgate.__version__,
            "description": "What an operator may see and do while the gateway runs.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {
                str(status): _json_response(text, {"$ref": f"{_SCHEMAS}Problem"}, "application/problem+json")
                for status, text in _PROBLEMS.items()
            },
        },
    }


def _types(resources: Iterable[Resource]) -> Iterator[Any]:
    yield Problem
    for resource in resources:
        yield from (resource.answer, resource.body, resource.query)


def _operation(
    resource: Resource, schemas: dict[Any, dict[str, Any]], components: dict[str, Any]
) -> dict[str, Any]:
    parameters = [
        {
            "name": word[1:-1],
            "in": "path",
            "required": True,
            "description": "Percent-encoded, a slash in it too.",
            "schema": {"type": "string", "minLength": 1},
        }
        for word in resource.segments
        if word[:1] == "{"
    ]
    if resource.query is not None:
        parameters += _query(schemas[resource.query], components)
    if resource.conditional:
        parameters.append(
            {
                "name": "If-Match",
                "in": "header",
                "required": False,
                "description": "The ETag of /configuration that must still be in force.",
                "schema": {"type": "string", "pattern": r'^(\*|"[!#-~]*")$'},
            }
        )
    operation: dict[str, Any] = {
        "operationId": _identifier(resource),
        "summary": resource.summary,
        "parameters": parameters,
        "responses": dict(sorted(_responses(resource, schemas).items())),
    }
    if resource.open:
        operation["security"] = []
    if resource.body is not None:
        operation["requestBody"] = {
            "required": resource.need_body,
            "content": {"application/json": {"schema": schemas[resource.body]}},
        }
    return operation


def _identifier(resource: Resource) -> str:
    words = re.findall(r"[A-Za-z0-9]+", resource.path)
    return "_".join([resource.method.lower(), *words]) if words else f"{resource.method.lower()}_page"


def _query(schema: dict[str, Any], components: dict[str, Any]) -> Iterator[dict[str, Any]]:
    found = components[schema["$ref"].removeprefix(_SCHEMAS)]
    for name, inner in found["properties"].items():
        yield {"name": name, "in": "query", "required": name in found.get("required", ()), "schema": inner}


def _responses(resource: Resource, schemas: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    media: dict[str, Any] = {"schema": {"type": "string"}}
    if resource.answer is not None:
        media = {"schema": schemas[resource.answer]}
    responses: dict[str, Any] = {
        str(resource.status): {
            "description": http.HTTPStatus(resource.status).phrase,
            "content": {resource.media: media},
        }
    }
    for status in _refusals(resource):
        if status in _PROBLEMS:
            responses[str(status)] = {"$ref": f"#/components/responses/{status}"}
        elif status == 304:
            responses["304"] = {"description": "As If-None-Match says: it is the same still."}
        else:  # such as the 503 of /readyz: the same, and no error
            responses[str(status)] = {
                "description": http.HTTPStatus(status).phrase,
                "content": {resource.media: media},
            }
    return responses


def _refusals(resource: Resource) -> Iterator[int]:
    yield from (400, 408, 421, 431, *resource.errors)
    if not resource.open:
        yield from (401, 403)
    if "{" in resource.path:
        yield 404
    if resource.conditional:
        yield 412
    if resource.method != "GET":
        yield from (413, 415)
    if resource.body is not None:
        yield 422


def _json_response(text: str, schema: dict[str, Any], media: str) -> dict[str, Any]:
    return {"description": text, "content": {media: {"schema": schema}}}


# -- the page


def markdown(resources: Iterable[Resource] = RESOURCES) -> str:
    """A section for each resource, then one for each type."""
    resources = tuple(resources)
    parts = ["\n| request | does |\n|---|---|\n"]
    parts += [f"| `{one.method} {_shown(one.path)}` | {one.summary} |\n" for one in resources]
    for one in resources:
        parts.append(f"\n### {one.method} {_shown(one.path)}\n\n{one.summary}.")
        parts.append(" Needs no token.\n" if one.open else "\n")
        parts += _facts(one)
    parts.append("\n## Types\n")
    types = dict.fromkeys(kind for kind in _types(resources) if kind is not None)
    _, components = msgspec.json.schema_components(types, ref_template=_SCHEMAS + "{name}")
    for name, schema in sorted(components.items()):
        parts.append(_type(name, schema))
    return "".join(parts)


def _shown(path: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: found[1].upper(), path)


def _facts(resource: Resource) -> Iterator[str]:
    lines = []
    if resource.query is not None:
        lines.append(f"query: {_link(resource.query)}")
    if resource.body is not None:
        lines.append(f"body: {_link(resource.body)}" + ("" if resource.need_body else ", or none"))
    if resource.conditional:
        lines.append("`If-Match`: the ETag that must still be in force")
    answer = f"{resource.media}" if resource.answer is None else _link(resource.answer)
    lines.append(f"{resource.status}: {answer}")
    lines += [
        f"{status}: {_PROBLEMS[status] if status in _PROBLEMS else http.HTTPStatus(status).phrase}"
        for status in sorted({*_refusals(resource)} - {400, 401, 403, 408, 413, 415, 421, 431})
    ]
    yield "\n" + "".join(f"- {line}\n" for line in lines)


def _link(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, Struct):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return "an object"


def _type(name: str, schema: dict[str, Any]) -> str:
    text = " ".join(schema.get("description", "").replace("|", r"\|").split())
    rows = [f"\n### {name}\n\n" + (f"{text}\n\n" if text else "") + "| member | type |\n|---|---|\n"]
    required = schema.get("required", ())
    for member, inner in schema.get("properties", {}).items():
        optional = "" if member in required else ", may be absent"
        rows.append(f"| `{member}` | {_kind(inner)}{optional} |\n")
    return "".join(rows)


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_SCHEMAS)
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        items = schema.get("items")
        return f"array of {_kind(items)}" if items else "array"
    if kind == "object":
        values = schema.get("additionalProperties")
        return f"object of {_kind(values)}" if isinstance(values, dict) and values else "object"
    if "minimum" in schema:
        return f"{kind}, {schema['minimum']} to {schema.get('maximum', '...')}"
    return kind


if __name__ == "__main__":
    page = Path(sys.argv[1])
    written, mark, _ = page.read_text().partition(MARK)
    page.write_text(written + mark + markdown())
