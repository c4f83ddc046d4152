"""How two configurations differ, by meaning: which listeners, routes, upstreams and plugins, and in which
keys."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from fastgate.config.model import Sources
from fastgate.config.outline import Covered, Ordered, Outline, outline
from fastgate.config.problems import ConfigError

__all__ = ["Difference", "ItemChange", "KeyChange", "difference", "lines", "summary"]

_NOUNS: Final = {
    "listeners": "listener", "upstreams": "upstream", "routes": "route", "plugins": "plugin",
    "acme": "acme",
}  # fmt: skip


class KeyChange(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """key: as in "match.prefix". old, new: as written, absent where it was not there; secrets are covered."""

    key: str
    old: Any | UnsetType = UNSET
    new: Any | UnsetType = UNSET


class ItemChange(Struct, frozen=True, kw_only=True):
    """kind: "listener", "route", "upstream", "plugin", or a table's name such as "server", then without a
    `name`. keys: of what was added or removed, all that it says."""

    kind: str
    name: str
    change: Literal["added", "removed", "changed"]
    keys: tuple[KeyChange, ...]


class Difference(Struct, frozen=True, kw_only=True):
    """order: the routes that both have stand in another order. files: those beside the configuration (keys,
    plugins' code ...) that said something else."""

    items: tuple[ItemChange, ...]
    order: bool
    files: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.items or self.order or self.files)


def difference(old: Sources, new: Sources) -> Difference:
    """What ``new`` changes."""
    before, after = _outline(old), _outline(new)
    items = []
    for kind in (*_NOUNS, *sorted({*before, *after} - {*_NOUNS})):
        items += _items(kind, before.get(kind, {}), after.get(kind, {}))
    both = [name for name in before.get("routes", {}) if name in after.get("routes", {})]
    order = both != [name for name in after.get("routes", {}) if name in before.get("routes", {})]
    then, now = old.absolute().attached, new.absolute().attached
    files = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    return Difference(items=tuple(items), order=order, files=tuple(files))


def summary(old: Sources, new: Sources) -> str:
    """ "routes: 1 added, 2 changed; files: 1"."""
    found = difference(old, new)
    parts = []
    for kind, noun in _NOUNS.items():
        words = [
            f"{count} {word}"
            for word in ("added", "changed", "removed")
            if (count := sum(each.kind == noun and each.change == word for each in found.items))
        ]
        if words:
            parts.append(f"{kind}: {', '.join(words)}")
    parts += [f"{each.kind} {each.change}" for each in found.items if each.kind not in _NOUNS.values()]
    parts += ["order of routes"] if found.order else []
    parts += [f"files beside it: {len(found.files)}"] if found.files else []
    return "; ".join(parts)


def lines(found: Difference) -> list[str]:
    """For a terminal."""
    out = []
    for each in found.items:
        sign = {"added": "+", "removed": "-", "changed": "~"}[each.change]
        out.append(f"{sign} {each.kind} {each.name}".rstrip())
        for key in each.keys:
            if each.change == "changed":
                old = "(none)" if key.old is UNSET else _shown(key.old)
                new = "(none)" if key.new is UNSET else _shown(key.new)
                out.append(f"    {key.key}: {old} -> {new}")
            else:
                out.append(f"    {key.key}: {_shown(key.new if each.change == 'added' else key.old)}")
    out += ["~ the order of the routes"] if found.order else []
    out += [f"~ file {name}" for name in found.files]
    return out


def _outline(sources: Sources) -> Outline:
    try:
        return outline(sources)
    except ConfigError:
        return {}  # it came from no file


def _items(kind: str, before: dict[str, Any], after: dict[str, Any]) -> list[ItemChange]:
    noun = _NOUNS.get(kind, kind)
    found = []
    for name in dict.fromkeys((*before, *after)):
        if name not in before:
            keys = _keys(UNSET, after[name])
            found.append(ItemChange(kind=noun, name=name, change="added", keys=keys))
        elif name not in after:
            keys = _keys(before[name], UNSET)
            found.append(ItemChange(kind=noun, name=name, change="removed", keys=keys))
        elif before[name] != after[name]:
            keys = _keys(before[name], after[name])
            found.append(ItemChange(kind=noun, name=name, change="changed", keys=keys))
    return found


def _keys(old: Any, new: Any, path: str = "") -> tuple[KeyChange, ...]:
    if isinstance(old, dict | UnsetType) and isinstance(new, dict | UnsetType) and (old or new):
        one, other = ({} if isinstance(each, UnsetType) else each for each in (old, new))
        found: list[KeyChange] = []
        if isinstance(old, Ordered) and isinstance(new, Ordered):
            then, now = [name for name in old if name in new], [name for name in new if name in old]
            if then != now:
                found.append(KeyChange(key=f"{path} (order)", old=then, new=now))
        for name in sorted({*one, *other}):
            below = one.get(name, UNSET), other.get(name, UNSET)
            if below[0] != below[1]:
                found += _keys(*below, f"{path}.{name}" if path else name)
        return tuple(found)
    return (KeyChange(key=path, old=_plain(old), new=_plain(new)),) if path else ()


def _plain(value: Any) -> Any:
    """As JSON can say it."""
    if isinstance(value, Covered):
        return repr(value)
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()
