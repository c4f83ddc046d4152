"""The text formats of metrics: Prometheus 0.0.4 and OpenMetrics 1.0.

https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from fastgate.telemetry.families import FAMILIES, Family

__all__ = ["OPENMETRICS", "PROMETHEUS", "in_order", "samples", "wants_openmetrics"]

PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
T = TypeVar("T")
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept field (RFC 9110 12.5.1) ranks OpenMetrics above plain text. An empty one does not."""
    best = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for element in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in element.split(";"))
        if kind in best:
            best[kind] = max(best[kind], _quality(parameters))
    return best["application/openmetrics-text"] > best["text/plain"]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def samples(family: Family, rows: Iterable[tuple[tuple[str, ...], float]]) -> bytes:
    """Lines of a family that is no histogram: values of its labels, in their order, and the number."""
    lines = []
    for values, number in rows:
        pairs = ",".join(
            f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(family.labels, values, strict=True)
        )
        lines.append(f"{family.name}{{{pairs}}} {number!r}\n" if pairs else f"{family.name} {number!r}\n")
    return "".join(lines).encode()


def in_order(texts: Mapping[str, T], openmetrics: bool) -> list[bytes | T]:
    """The parts of the whole text: of each family, by its key, what stands for its samples; one that has none
    is left out."""
    parts: list[bytes | T] = []
    for family in FAMILIES:
        if found := texts.get(family.key):
            parts += (_HEADS[openmetrics][family.key], found)
    if openmetrics:
        parts.append(b"# EOF\n")
    return parts


def _head(family: Family, openmetrics: bool) -> bytes:
    name, kind = (family.bare, family.kind) if openmetrics else (family.name, _plain_kind(family))
    unit = f"# UNIT {name} {family.unit}\n" if openmetrics and family.unit else ""
    return f"# TYPE {name} {kind}\n{unit}# HELP {name} {_help(family, openmetrics)}\n".encode()


def _plain_kind(family: Family) -> str:
    return "gauge" if family.kind == "info" else family.kind


def _help(family: Family, openmetrics: bool) -> str:
    text = family.help.replace("\\", r"\\")
    return text.replace('"', r"\"") if openmetrics else text


_HEADS: Final = {
    openmetrics: {family.key: _head(family, openmetrics) for family in FAMILIES}
    for openmetrics in (False, True)
}
