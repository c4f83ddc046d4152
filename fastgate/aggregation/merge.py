"""One answer of all parts' values: each at its group, in the order of the file, and no member lost silently.

A part without a group puts its members at the top. A group "page.user" goes through the object `page` of
another part, or makes one. Two parts that put something at one place collide, unless both put objects there
and ``merge`` is "deep": then their members are put there one by one, by the same rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from fastgate.aggregation.documents import Value, encode, kind_of, opened
from fastgate.aggregation.failures import PartFailure
from fastgate.config.json_paths import read_path, write_path
from fastgate.config.model.aggregate import Aggregate
from fastgate.config.problems import quote
from fastgate.config.units import BadValue

__all__ = ["MAX_COLLISIONS", "Collision", "Merged", "Merger"]

#: Of one answer that are told one by one.
MAX_COLLISIONS: Final = 16

_Names: TypeAlias = tuple[str, ...]


class Collision(NamedTuple):
    """member: its path in the answer, shortened. kept, lost: the parts."""

    member: str
    kept: str
    lost: str


class Merged(NamedTuple):
    """value: the answer, a dict or a list that is the caller's own. collisions: those that ``on_collision``
    has decided, MAX_COLLISIONS at most. collided: how many there were."""

    value: dict[str, Value] | list[Value]
    collisions: tuple[Collision, ...] = ()
    collided: int = 0

    def encode(self) -> bytes:
        return encode(self.value)


class Merger:
    """Of one aggregation, for all its exchanges. Raises BadValue for a group with elements in it."""

    __slots__ = ("_as_list", "_at_top", "_deep", "_on_collision", "_parts", "_simple")

    def __init__(self, aggregate: Aggregate) -> None:
        self._as_list = aggregate.answer == "list"
        self._deep = aggregate.merge == "deep"
        self._on_collision = aggregate.on_collision
        self._parts = tuple(
            (name, _group(part.group)) for name, part in aggregate.parts.items() if not part.omit
        )
        self._at_top = frozenset(name for name, group in self._parts if not group and not self._as_list)
        self._simple = all(len(group) <= 1 for _, group in self._parts)

    def fitted(self, name: str, value: Value) -> Value:
        """A part's value as it is to be kept for ``merge``: what is opened here is not opened there. Raises
        PartFailure("part-type"): it has no group and is no object."""
        return _members(name, value) if name in self._at_top else value

    def at_top(self, name: str) -> bool:
        """Whether its members go to the top: then it had better be decoded open."""
        return name in self._at_top

    def merge(self, values: Mapping[str, Value]) -> Merged:
        """values: of the parts that have one, by name; those that the answer omits may be among them.

        Raises PartFailure: "aggregate-collision" (with "fail"), "part-type" as ``fitted``, "part-body"
        (nested too deep).
        """
        if self._as_list:
            return Merged(self._list(values))
        if self._simple:
            answer: dict[str, Value] = {}
            count = 0
            for name, group in self._parts:
                if name not in values:
                    continue
                if group:
                    answer[group[0]] = values[name]
                    count += 1
                else:
                    members = _members(name, values[name])
                    answer.update(members)
                    count += len(members)
            if count == len(answer):  # no two have the same
                return Merged(answer)
        run = _Run(self._deep, self._on_collision)
        try:
            for name, group in self._parts:
                if name in values:
                    run.add(name, group, values[name])
            return Merged(run.top.value(), tuple(run.collisions), run.collided)
        except RecursionError:
            raise PartFailure("part-body", "the JSON is nested too deep") from None

    def _list(self, values: Mapping[str, Value]) -> list[Value]:
        elements: list[Value] = []
        for name, _ in self._parts:
            if name in values:
                value = opened(values[name])
                if isinstance(value, list):
                    elements.extend(value)
                else:
                    elements.append(value)
        return elements


def _group(text: str) -> _Names:
    path = read_path(text, each=False)
    names = tuple(step for step in path if isinstance(step, str))
    if len(names) < len(path):
        raise BadValue("a group goes through members alone, and not through elements")
    return names


def _members(name: str, value: Value) -> dict[str, Value]:
    members = opened(value)
    if not isinstance(members, dict):
        raise PartFailure("part-type", f"part {name} has no group: expected an object, got {kind_of(value)}")
    return members


class _Object:
    """An object of the answer that is open. whole: the part whose object it is; "": groups have made it.
    parts: who has put each member that is no _Object."""

    __slots__ = ("members", "parts", "whole")

    def __init__(self, members: dict[str, Value] | None = None, whole: str = "") -> None:
        self.members: dict[str, Value | _Object] = dict(members or {})
        self.parts = dict.fromkeys(self.members, whole)
        self.whole = whole

    def value(self) -> dict[str, Value]:
        return {
            name: member.value() if isinstance(member, _Object) else member
            for name, member in self.members.items()
        }

    def put(self, name: str, value: Value | _Object, part: str) -> None:
        """In the place of what was there, if anything was."""
        self.members[name] = value
        self.parts[name] = part

    def owners(self) -> list[str]:
        """The parts that have put something into it."""
        found = dict.fromkeys([self.whole] if self.whole else [])
        found.update(dict.fromkeys(self.parts.values()))
        for member in self.members.values():
            if isinstance(member, _Object):
                found.update(dict.fromkeys(member.owners()))
        return list(found)

    def without(self, part: str) -> None:
        """Takes out what has come with that part's object."""
        self.whole = ""
        for name, member in list(self.members.items()):
            if isinstance(member, _Object):
                if member.whole == part:
                    member.without(part)
            elif self.parts[name] == part:
                del self.members[name], self.parts[name]


class _Run:
    """The making of one answer with collisions or with groups below others."""

    def __init__(self, deep: bool, on_collision: str) -> None:
        self.deep = deep
        self.on_collision = on_collision
        self.top = _Object()
        self.collisions: list[Collision] = []
        self.collided = 0

    def add(self, part: str, group: _Names, value: Value) -> None:
        if not group:
            for name, member in _members(part, value).items():
                self._put(self.top, (name,), member, part)
            return
        place = self.top
        for depth in range(1, len(group)):
            below = self._through(place, group[:depth], part)
            if below is None:
                return
            place = below
        self._put(place, group, value, part)

    def _through(self, place: _Object, path: _Names, part: str) -> _Object | None:
        """The object there, open. None: something else is, and it stays."""
        name = path[-1]
        there = place.members.get(name)
        if isinstance(there, _Object):
            return there
        made: _Object | None = _Object()
        if name in place.members:
            owner = place.parts.pop(name)
            members = opened(there)
            if isinstance(members, dict):
                made = _Object(members, owner)
            elif not self._later_wins(path, [owner], part):
                place.parts[name] = owner
                return None
        place.members[name] = made
        return made

    def _put(self, place: _Object, path: _Names, value: Value, part: str) -> None:
        name = path[-1]
        if name not in place.members:
            place.put(name, value, part)
            return
        there = place.members[name]
        members = opened(value)
        if not isinstance(there, _Object) and self.deep and isinstance(members, dict):
            others = opened(there)
            if isinstance(others, dict):
                there = place.members[name] = _Object(others, place.parts.pop(name))
        if isinstance(there, _Object) and isinstance(members, dict):
            if there.whole and not self.deep:
                if not self._later_wins(path, [there.whole], part):
                    return
                there.without(there.whole)
            there.whole = there.whole or part
            for below, member in members.items():
                self._put(there, (*path, below), member, part)
        else:
            owners = there.owners() if isinstance(there, _Object) else [place.parts[name]]
            if self._later_wins(path, owners, part):
                place.put(name, value, part)

    def _later_wins(self, path: _Names, first: list[str], last: str) -> bool:
        """A collision. first: those whose is what is there. Raises PartFailure where that is the end of the
        answer."""
        if self.on_collision == "fail":
            raise PartFailure("aggregate-collision", f"{_shown(path)}; parts {', '.join(first)}, {last}")
        later = self.on_collision == "last"
        lost = [(last, one) for one in first] if later else [(first[0], last)]
        self.collided += len(lost)
        for kept, one in lost[: MAX_COLLISIONS - len(self.collisions)]:
            self.collisions.append(Collision(_shown(path), kept, one))
        return later


def _shown(path: _Names) -> str:
    """For the log: an upstream has made the names, of any length and with any character."""
    return quote(write_path(path), 200)[1:-1]
