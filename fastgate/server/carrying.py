"""A configuration on its way from the supervisor to a worker.

The supervisor has read it, with all files and secrets that it names: the workers, which may not be allowed to
read them, are given the outcome, and all the same one. Nothing is ever unpickled that a worker has sent.
"""

from __future__ import annotations

import io
import pickle
from typing import Any, Final

from fastgate.config.model import Secret
from fastgate.config.plugin_code import CodePlace, class_at, place_of

__all__ = ["dumps", "loads"]

_SECRET: Final = "secret"
_CLASS: Final = "class"


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, Secret):
            return (_SECRET, obj.reveal(), obj.source)
        if isinstance(obj, type) and (place := place_of(obj)) is not None:
            return (_CLASS, *place)
        return None


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: Any) -> Any:
        kind, *rest = pid
        if kind == _SECRET:
            return Secret(*rest)
        return class_at(CodePlace(*rest))


def dumps(value: object) -> bytes:
    """For `loads` in a process that was forked from this one."""
    out = io.BytesIO()
    _Pickler(out, pickle.HIGHEST_PROTOCOL).dump(value)
    return out.getvalue()


def loads(data: bytes) -> Any:
    """Raises BadValue where the code of a plugin is no longer what the sender has loaded."""
    return _Unpickler(io.BytesIO(data)).load()
