"""Validators by jsonschema-rs: in linear time whatever the value is, and without any way out of the document.

Expressions run in Rust's ``regex`` (finite automata, as RE2): what it can't do, look-around and back
references, is refused when the schema is read. References beyond the document are never fetched.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

if TYPE_CHECKING:
    import jsonschema_rs

ROOT: Final = "urn:fastgate:document"
# Describing errors costs far more than finding that there are some: only those of small values are, and few.
EXPLAIN_BYTES: Final = 8 * 1024
EXPLAIN_ERRORS: Final = 64
MAX_TEXT: Final = 200


class Violation(NamedTuple):
    """One thing that is wrong. where: "body", or the place of a parameter. at: JSON Pointer, or the
    parameter's name. message: holds no value that the client sent."""

    where: str
    at: str
    message: str

    def shown(self) -> dict[str, str]:
        """For the client."""
        key = "pointer" if self.where == "body" else "name"
        return {"in": self.where, key: self.at[:MAX_TEXT], "message": self.message[:MAX_TEXT]}


class Schema:
    """One schema, compiled. Raises ValueError where it is none, or holds what can't be checked safely."""

    def __init__(self, schema: Any, registry: jsonschema_rs.Registry | None = None) -> None:
        """registry: what its references may name besides itself."""
        import jsonschema_rs

        try:
            self._validator = jsonschema_rs.validator_for(
                schema,
                registry=registry,
                validate_formats=True,
                mask="the value",
                offline=True,
                pattern_options=jsonschema_rs.RegexOptions(),
            )
        except jsonschema_rs.ValidationError as error:
            where = _pointer(error.instance_path) or "the schema"
            why = error.message.replace("the value is", "it is").replace("the value", "it")
            if '"regex"' in why:
                why = (
                    "no expression for a linear-time engine, which has no look-around and no back references"
                )
            raise ValueError(f"{where}: {why}") from None

    def check(self, value: Any, size: int, most: int, where: str = "body", name: str = "") -> list[Violation]:
        """What is wrong with a value of ``size`` bytes, ``most`` things at most; empty: nothing is."""
        if self._validator.is_valid(value):
            return []
        if size > EXPLAIN_BYTES or len(self._validator.evaluate(value).errors()) > EXPLAIN_ERRORS:
            return [Violation(where, name, "does not match the schema, in too many places to name")]
        return [
            Violation(where, name or _pointer(error.instance_path), error.message)
            for error in islice(self._validator.iter_errors(value), most)
        ]


def _pointer(path: list[str | int]) -> str:
    return "".join("/" + str(token).replace("~", "~0").replace("/", "~1") for token in path)


def registry_of(document: Any) -> jsonschema_rs.Registry:
    """Of an OpenAPI document, whose schemas are 2020-12. Raises ValueError."""
    import jsonschema_rs

    try:
        return jsonschema_rs.Registry([(ROOT, document)], draft=jsonschema_rs.Draft202012)
    except jsonschema_rs.ReferencingError as error:
        raise ValueError(str(error)) from None


def schema_at(registry: jsonschema_rs.Registry, pointer: str) -> Schema:
    """The schema at a JSON Pointer of the registry's document. Raises ValueError."""
    try:
        return Schema({"$ref": f"{ROOT}#{quote(pointer, safe='/~')}"}, registry)
    except ValueError as error:
        raise ValueError(f"{pointer}: {error}") from None
