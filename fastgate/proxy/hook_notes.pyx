# How the hooks of a run did, for `fastgate why` and traces. Bare numbers in the run itself, since most runs end well and
# nobody asks: two looks at the clock for a hook. They become notes when the exchange is kept.

HOOK_VERDICTS: tuple[str, ...] = (
    "cut off", "passed", "answered", "would have answered", "refused", "failed", "timed out", "not asked: breaker open",
)
cdef list _HOOK_VERDICT_BYTES = [each.encode() for each in HOOK_VERDICTS]
cdef tuple _HOOK_PHASES = (b"", b"request", b"error", b"response", b"body", b"log", b"")


cdef int hook_began(PluginRun run, object who) noexcept:
    cdef HookNote* note
    cdef HookNote* last = &run.hooks[run.hook_count - 1] if run.hook_count else NULL
    if not run.noting:
        return 0
    run.hook_at = now_ns()
    run.hook_lost = False
    if last != NULL and last.who == <void*>who and last.state == run.state:
        last.verdict = HOOK_RUNNING             # the next piece of a body
    elif run.hook_count == MAX_HOOK_NOTES:
        run.hook_lost = True
        run.x.notes_lost += 1
    else:
        note = &run.hooks[run.hook_count]
        run.hook_count += 1
        note.who = <void*>who
        note.began = run.hook_at
        note.spent = 0
        note.status = 0
        note.state = <uint8_t>run.state
        note.verdict = HOOK_RUNNING
    return 0


cdef int hook_ended(PluginRun run, int verdict, int status) noexcept:
    # More than once for one call: the last word counts.
    cdef HookNote* note
    if not run.noting or run.hook_lost or run.hook_count == 0:
        return 0
    note = &run.hooks[run.hook_count - 1]
    if note.verdict == HOOK_RUNNING:
        note.spent += now_ns() - run.hook_at
    note.verdict = <uint8_t>verdict
    note.status = <int16_t>status
    return 0


cdef int note_hooks(PluginRun run) except -1:
    cdef Exchange x = run.x
    cdef HookNote* note
    cdef bytes name
    cdef object who
    cdef int i
    for i in range(run.hook_count):
        note = &run.hooks[i]
        if note.verdict == HOOK_RUNNING:
            note.spent += now_ns() - run.hook_at
        who = <object>note.who
        name = who.name.encode("utf-8", "replace")
        if not _note_begin(x, b"plugin" if isinstance(who, PluginSlot) else b"filter", note.began):
            continue
        _note_text(x, b"name", bytes_span(name))
        _note_text(x, b"phase", bytes_span(<bytes>_HOOK_PHASES[note.state]))
        _note_number(x, b"took", note.spent)
        _note_text(x, b"verdict", bytes_span(<bytes>_HOOK_VERDICT_BYTES[note.verdict]))
        if note.status:
            _note_number(x, b"status", note.status)
        out_byte(&x.notes, 125)
    return 0
