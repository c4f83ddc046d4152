# A coroutine that may become a task. asyncio's own functions (`timeout`, TaskGroup, anyio) ask for the current task before
# anything has suspended. So a coroutine runs under a stand-in, which is a task to whoever asks, and hands on to the real one
# as soon as there is one.

import asyncio
import collections.abc
from asyncio import current_task as _current_task
from asyncio.tasks import _enter_task, _leave_task

from cpython.ref cimport PyObject, Py_XDECREF

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(PyObject* iter, PyObject* arg, PyObject** result) except? PYGEN_ERROR
    bint PyCoro_CheckExact(object thing)
    object PyContext_CopyCurrent()
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1


cdef class _StandIn:
    # What `asyncio.current_task()` gives inside a plugin: the real task, once there is one.
    cdef object loop
    cdef object coroutine
    cdef PluginSlot slot                # whose it is
    cdef object real
    cdef bint cancel_asked
    cdef object __weakref__

    def __getattr__(self, name):
        if self.real is not None:
            return getattr(self.real, name)
        if name == "_must_cancel":
            return False
        if name == "_fut_waiter":
            return None
        raise AttributeError(name)

    def cancel(self, msg=None):
        if self.real is not None:
            return self.real.cancel(msg)
        self.cancel_asked = True
        return True

    def cancelling(self):
        return int(self.cancel_asked) if self.real is None else self.real.cancelling()

    def uncancel(self):
        if self.real is not None:
            return self.real.uncancel()
        self.cancel_asked = False
        return 0

    def done(self):
        return False if self.real is None else self.real.done()

    def cancelled(self):
        return False if self.real is None else self.real.cancelled()

    def get_loop(self):
        return self.loop

    def get_coro(self):
        return self.coroutine

    def get_name(self):
        return "plugin" if self.real is None else self.real.get_name()


cdef class _Resumed:
    # The rest of a coroutine, for asyncio.Task: its first step gives out what the coroutine waits for already.
    cdef object coroutine
    cdef object waits_for
    cdef _StandIn stand_in
    cdef bint begun

    def send(self, value):
        if not self.begun:
            self.begun = True
            waits_for, self.waits_for = self.waits_for, None
            return waits_for
        real = self._enter()
        try:
            return self.coroutine.send(value)
        except SystemExit as error:
            raise _wanted_to_exit() from error
        finally:
            self._leave(real)

    def throw(self, *error):
        # A task that is cancelled before its first step never hears what the coroutine waits for: we cancel that in its place.
        waits_for, self.waits_for = self.waits_for, None
        self.begun = True
        if waits_for is not None and not waits_for.cancel() and not waits_for.cancelled():
            waits_for.exception()               # it has failed meanwhile, and nobody else will look
        real = self._enter()
        try:
            return self.coroutine.throw(*error)
        except SystemExit as error:
            raise _wanted_to_exit() from error
        finally:
            self._leave(real)

    def close(self):
        self.coroutine.close()

    def __await__(self):
        raise RuntimeError("only a task runs this")

    def _enter(self):
        real = self.stand_in.real
        _leave_task(self.stand_in.loop, real)
        _enter_task(self.stand_in.loop, self.stand_in)
        return real

    def _leave(self, real):
        _leave_task(self.stand_in.loop, self.stand_in)
        _enter_task(self.stand_in.loop, real)


collections.abc.Coroutine.register(_Resumed)


cdef object _wanted_to_exit():
    # A task lets SystemExit through to the loop, which would end the gateway with all that runs on it.
    return RuntimeError("a plugin does not end the program")


async def _await(awaitable):
    return await awaitable


cdef object start_coroutine(object loop, object coroutine, PluginSlot slot, list result):
    # Its first step. None: it has returned, and `result` holds what; else the Task that runs the rest. Raises what it raises,
    # also what is no Exception.
    cdef PyObject* out = NULL
    cdef PySendResult how
    cdef object context = PyContext_CopyCurrent()
    cdef object outer = _current_task(loop)
    cdef _StandIn stand_in = _StandIn()
    cdef _Resumed rest
    stand_in.loop = loop
    stand_in.coroutine = coroutine
    stand_in.slot = slot
    if outer is not None:
        _leave_task(loop, outer)
    _enter_task(loop, stand_in)
    PyContext_Enter(context)
    try:
        how = PyIter_Send(<PyObject*>coroutine, <PyObject*>None, &out)
    finally:
        PyContext_Exit(context)
        _leave_task(loop, stand_in)
        if outer is not None:
            _enter_task(loop, outer)
    value = <object>out
    Py_XDECREF(out)
    if how == PYGEN_RETURN:
        result.append(value)
        return None
    rest = _Resumed()
    rest.coroutine = coroutine
    rest.waits_for = value
    rest.stand_in = stand_in
    stand_in.real = asyncio.Task(rest, loop=loop, name=slot.name, context=context)
    if stand_in.cancel_asked:
        stand_in.real.cancel()
    return stand_in.real
