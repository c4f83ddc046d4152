"""The admin API's resources of change and revert."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from fastgate.config import Sources
from fastgate.config.diff import Difference
from fastgate.config.outline import holds_secrets
from fastgate.server.admin_types import Call, Refusal, Resource, expected
from fastgate.server.operations import Operations, ReloadResult, UnknownName, VersionView

__all__ = ["CHANGE"]

AnyCall = Call[Any, Any]


class Versions(Struct, frozen=True):
    versions: list[VersionView]


class Rollback(Struct, frozen=True, forbid_unknown_fields=True):
    """version: which one; not given: the last one that said something else than the one in force."""

    version: Annotated[int, Meta(ge=1)] | UnsetType = UNSET


async def _history(operations: Operations, call: AnyCall) -> object:
    return Versions(await operations.history())


async def _sources(operations: Operations, call: AnyCall) -> object:
    name = call.names["version"]
    found = await operations.sources(None if name == "current" else _number(name))
    if not call.owner and holds_secrets(found):
        raise Refusal(
            403,
            "a secret stands in the text, which is told on a Unix socket alone: write it as { env = ... } or "
            "{ file = ... }",
        )
    return found


async def _diff(operations: Operations, call: AnyCall) -> object:
    return await operations.diff(_number(call.names["old"]), _number(call.names["new"]))


async def _rollback(operations: Operations, call: Call[None, Rollback | None]) -> object:
    version = UNSET if call.body is None else call.body.version
    return await operations.rollback(None if version is UNSET else version, expected=expected(call))


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise UnknownName(f"there is no version {text[:20]}")
    return int(text)


CHANGE: Final = (
    Resource(
        method="GET",
        path="/history",
        summary="The configurations that were in force, oldest first",
        act=_history,
        answer=Versions,
    ),
    Resource(
        method="GET",
        path="/history/{version}",
        summary="What the files of one of them said, as they said it; `current`: of the one in force",
        act=_sources,
        answer=Sources,
        errors=(403,),
    ),
    Resource(
        method="GET",
        path="/history/{old}/diff/{new}",
        summary="What changed between two of them, by meaning",
        act=_diff,
        answer=Difference,
    ),
    Resource(
        method="POST",
        path="/rollback",
        summary="Puts an earlier one in force again, as a new version, or changes nothing",
        act=_rollback,
        answer=ReloadResult,
        body=Rollback,
        need_body=False,
        conditional=True,
        errors=(404, 422),
    ),
)
