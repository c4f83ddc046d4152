# Theory of operation. A name gets a place when a configuration first has it, and the same one again whenever it comes
# back. Places that no name has had yet are given first. When they are used up, those of names that are gone are given
# again, the one longest gone first, but never one whose Slot is still held: an exchange under way on a route that a
# reload took away holds its Route, and that its Slot.

import gc
import weakref


class SlotsFull(Exception):
    """More names than there are places. Nothing was given."""


cdef class Slot:
    """A place in a SlotTable. It is not given to another name while this object lives."""

    def __init__(self, index: int) -> None:
        self.index = index


cdef class SlotTable:
    """Gives each name a place below `room`."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.names = []
        self.places = {}
        self.held = weakref.WeakValueDictionary()

    def take(self, names: Iterable[str], elsewhere: Iterable[int] = ()) -> tuple[list[Slot], list[int]]:
        """A Slot for each of these different names, and the places among them that had another name before.

        elsewhere: places that other processes hold. Raises SlotsFull, and then changes nothing, when there are not enough places that nobody holds.
        """
        cdef list wanted = list(names), again = []
        cdef list fresh = [name for name in wanted if name not in self.places]
        cdef int first = len(self.names), missing = len(fresh) - (self.room - first), place
        cdef set there = set(elsewhere)
        if missing > 0:
            again = self._gone(set(wanted), there, missing)
            if len(again) < missing:
                # What a reload retired may lie in cycles that were not looked at yet.
                gc.collect()
                again = self._gone(set(wanted), there, missing)
            if len(again) < missing:
                held = len({self.names[place] for place in there.union(self.held)} - set(wanted))
                raise SlotsFull(f"{len(wanted)} names, and {held} that are still in use, for {self.room} places")
        for place in again:
            del self.places[self.names[place]]
        for name, place in zip(fresh, [*range(first, min(self.room, first + len(fresh))), *again], strict=True):
            if place == len(self.names):
                self.names.append(name)
            else:
                self.names[place] = name
            self.places[name] = place
        for name in wanted:
            self.places[name] = self.places.pop(name)
        return [self._slot(self.places[name]) for name in wanted], again

    def _gone(self, wanted: set[str], elsewhere: set[int], count: int) -> list[int]:
        # Places of names that are neither wanted nor held.
        found = [
            place for name, place in self.places.items()
            if name not in wanted and place not in self.held and place not in elsewhere
        ]
        return found[:count]

    def follow(self, places: Mapping[str, int]) -> list[Slot]:
        """A Slot for each name, at the places that another process took for them."""
        cdef int place
        for name, place in places.items():
            while len(self.names) <= place:
                self.names.append("")
            if self.names[place] != name:
                self.places.pop(self.names[place], None)
                self.names[place] = name
            self.places[name] = place
        return [self._slot(place) for place in places.values()]

    def _slot(self, place: int) -> Slot:
        slot = self.held.get(place)
        if slot is None:
            slot = Slot(place)
            self.held[place] = slot
        return slot
