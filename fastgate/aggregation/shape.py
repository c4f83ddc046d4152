"""What becomes of a part's value: target, jmespath, filter, pick, drop, rename, map, flatten, in this order.

All of it is compiled once. A step opens what lies on its way, and leaves the rest the text that it is. No
value is changed: a step makes new ones of those on its way, since others hold the old ones ({part.NAME}).

A place that is not there, or behind a null, is left alone. target, filter, map and flatten fail ("part-type")
where something else stands than they expect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

from fastgate.aggregation.documents import MISSING, Missing, Value, find, kind_of, opened
from fastgate.aggregation.expressions import Expression
from fastgate.aggregation.failures import PartFailure
from fastgate.config.json_paths import EACH, Path, read_path, write_path
from fastgate.config.model.aggregate import ListFilter, Part
from fastgate.config.units import BadValue

__all__ = ["CompileCondition", "Condition", "Shape", "compile_shape"]

#: Whether an element stays: of (values, element, place from 0). What values are only the condition knows.
Condition: TypeAlias = Callable[[Any, Value, int], bool]
CompileCondition: TypeAlias = Callable[[ListFilter], Condition]
_Step: TypeAlias = Callable[[Value, Any], Value]


class Shape:
    """Call it with the part's value and with what the conditions of `filter` want.

    Raises PartFailure: "part-type", of jmespath "part-too-large" too, and whatever a condition does.
    """

    __slots__ = ("_steps",)

    def __init__(self, steps: tuple[_Step, ...]) -> None:
        self._steps = steps

    def __call__(self, value: Value, values: Any) -> Value:
        for step in self._steps:
            value = step(value, values)
        return value


def compile_shape(part: Part, compile_condition: CompileCondition) -> Shape | None:
    """None where nothing is to be done. Raises BadValue for what the rules of the configuration refuse."""
    steps = tuple(_steps(part, compile_condition))
    return Shape(steps) if steps else None


def _steps(part: Part, compile_condition: CompileCondition) -> Iterator[_Step]:
    if part.target:
        yield _target(read_path(part.target, each=False))
    if part.jmespath:
        yield _jmespath(Expression(part.jmespath), part.max_body)
    for one in part.filter:
        yield _at("filter", read_path(one.list), _filtering(compile_condition(one)))
    if part.pick:
        yield _pick(_Tree.of({read_path(text): "" for text in part.pick}))
    if part.drop:
        yield _drop(_Tree.of({read_path(text): "" for text in part.drop}))
    if part.rename:
        renames = {read_path(text): name for text, name in part.rename.items()}
        for path in renames:
            if not path or not isinstance(path[-1], str):
                raise BadValue("members have names alone, elements have not")
        yield _rename(_Tree.of(renames))
    for place, member in part.map.items():
        yield _at("map", read_path(place), _mapping(read_path(member, each=False)))
    for place in part.flatten:
        yield _at("flatten", read_path(place), _flattened)


def _target(path: Path) -> _Step:
    def target(value: Value, values: Any) -> Value:
        found = find(value, path)
        if isinstance(found, Missing):
            raise PartFailure("part-type", f"target: there is no {write_path(path)}")
        return found

    return target


def _jmespath(expression: Expression, limit: int) -> _Step:
    return lambda value, values: expression.search(value, limit)


# -- lists at a place: filter, map, flatten -----------------------------------------------------------------

_Edit: TypeAlias = Callable[[list[Value], Any], Value]


def _at(key: str, path: Path, edit: _Edit) -> _Step:
    """Edits the list there, or each of the lists."""

    def wrong(at: int, wanted: str, value: Value) -> PartFailure:
        place = f"{key}: {write_path(path[:at])}: " if at else f"{key}: "
        return PartFailure("part-type", f"{place}expected {wanted}, got {kind_of(value)}")

    def edited(value: Value, at: int, values: Any) -> Value:
        value = opened(value)
        if value is None:
            return None
        if at == len(path):
            if not isinstance(value, list):
                raise wrong(at, "a list", value)
            return edit(value, values)
        step = path[at]
        if isinstance(step, str):
            if not isinstance(value, dict):
                raise wrong(at, "an object", value)
            if step not in value:
                return value
            return {**value, step: edited(value[step], at + 1, values)}
        if not isinstance(value, list):
            raise wrong(at, "a list", value)
        if step is EACH:
            return [edited(element, at + 1, values) for element in value]
        if step >= len(value):
            return value
        return [*value[:step], edited(value[step], at + 1, values), *value[step + 1 :]]

    return lambda value, values: edited(value, 0, values)


def _filtering(holds: Condition) -> _Edit:
    return lambda elements, values: [one for i, one in enumerate(elements) if holds(values, one, i)]


def _mapping(path: Path) -> _Edit:
    """Elements that have no such member are left out."""

    def mapped(elements: list[Value], values: Any) -> Value:
        found = [find(element, path) for element in elements]
        return [one for one in found if not isinstance(one, Missing)]

    return mapped


def _flattened(elements: list[Value], values: Any) -> Value:
    """By one level; what is no list stays as it is."""
    made: list[Value] = []
    for element in elements:
        element = opened(element)
        if isinstance(element, list):
            made.extend(element)
        else:
            made.append(element)
    return made


# -- members at many places: pick, drop, rename -------------------------------------------------------------


class _Tree:
    """Paths joined where they begin alike. ``end``: what is to be done at a place where one ends; None: none
    does."""

    __slots__ = ("each", "end", "members", "places")

    def __init__(self) -> None:
        self.end: str | None = None
        self.members: dict[str, _Tree] = {}
        self.places: dict[int, _Tree] = {}
        self.each: _Tree | None = None

    @classmethod
    def of(cls, paths: dict[Path, str]) -> _Tree:
        root = cls()
        for path, end in paths.items():
            root._add(path, end)
        root._join()
        return root

    def _add(self, path: Path, end: str) -> None:
        if not path:
            self.end = end
            return
        step = path[0]
        if isinstance(step, str):
            child = self.members.setdefault(step, _Tree())
        elif step is EACH:
            child = self.each = self.each or _Tree()
        else:
            child = self.places.setdefault(step, _Tree())
        child._add(path[1:], end)

    def _join(self) -> None:
        """What holds for each element does for the ones with a place of their own."""
        for place in self.places.values():
            if self.each is not None:
                place._take(self.each)
        for child in (*self.members.values(), *self.places.values(), *([self.each] if self.each else ())):
            child._join()

    def _take(self, other: _Tree) -> None:
        if self.end is None:
            self.end = other.end
        for name, child in other.members.items():
            self.members.setdefault(name, _Tree())._take(child)
        for place, child in other.places.items():
            self.places.setdefault(place, _Tree())._take(child)
        if other.each is not None:
            self.each = self.each or _Tree()
            self.each._take(other.each)


#: In place of a value that is left out.
_OUT: Final = MISSING


def _pick(tree: _Tree) -> _Step:
    def pick(value: Value, values: Any) -> Value:
        made = _picked(value, tree)
        if isinstance(made, Missing):
            wanted = "an object" if tree.members else "a list"
            raise PartFailure("part-type", f"pick: expected {wanted}, got {kind_of(value)}")
        return made

    return pick


def _picked(value: Value, tree: _Tree) -> Value | Missing:
    """MISSING: it is of another type than the paths say. null is kept."""
    if tree.end is not None:
        return value
    value = opened(value)
    if value is None:
        return None
    if isinstance(value, dict) and tree.members:
        members: dict[str, Value] = {}
        for name, child in value.items():
            below = tree.members.get(name)
            if below is not None:
                kept = _picked(child, below)
                if not isinstance(kept, Missing):
                    members[name] = kept
        return members
    if isinstance(value, list) and (tree.each is not None or tree.places):
        elements: list[Value] = []
        for i, child in enumerate(value):
            below = tree.places.get(i, tree.each)
            if below is not None:
                kept = _picked(child, below)
                if not isinstance(kept, Missing):
                    elements.append(kept)
        return elements
    return MISSING


def _drop(tree: _Tree) -> _Step:
    return lambda value, values: _dropped(value, tree)


def _dropped(value: Value, tree: _Tree) -> Value:
    value = opened(value)
    if isinstance(value, dict) and tree.members:
        members = {}
        for name, child in value.items():
            below = tree.members.get(name)
            if below is None:
                members[name] = child
            elif below.end is None:
                members[name] = _dropped(child, below)
        return members
    if isinstance(value, list) and (tree.each is not None or tree.places):
        elements = []
        for i, child in enumerate(value):
            below = tree.places.get(i, tree.each)
            if below is None:
                elements.append(child)
            elif below.end is None:
                elements.append(_dropped(child, below))
        return elements
    return value


def _rename(tree: _Tree) -> _Step:
    return lambda value, values: _renamed(value, tree)


def _renamed(value: Value, tree: _Tree) -> Value:
    """All at one time, so that two members can swap their names. Each stays where it stood."""
    value = opened(value)
    if isinstance(value, dict) and tree.members:
        members: dict[str, Value] = {}
        for name, child in value.items():
            below = tree.members.get(name)
            if below is not None:
                name = name if below.end is None else below.end
                child = _renamed(child, below)
            if name in members:
                raise PartFailure("part-type", f"rename: two members would be {write_path((name,))}")
            members[name] = child
        return members
    if isinstance(value, list) and (tree.each is not None or tree.places):
        elements: list[Value] = []
        for i, child in enumerate(value):
            below = tree.places.get(i, tree.each)
            elements.append(child if below is None else _renamed(child, below))
        return elements
    return value
