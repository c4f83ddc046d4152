# What plugins do behind the end of an exchange, on_log: nobody waits for it, and what is slow goes on in a task.

cdef int run_log_hooks(PluginRun run) except -1:
    # 1: a hook goes on behind the end, in a task. What a hook does here holds up nothing.
    cdef PluginSlot slot
    cdef bint suspended = False, well
    cdef int64_t now
    for step in run.chain.steps:
        if not isinstance(step, PluginSlot) or (<PluginSlot>step).on_log is None:
            continue
        slot = step
        run.slot = slot
        if slot.open_until_ns and run.trial is not slot:
            now = now_ns()
            if not slot.admits(now):
                run._in_doubt(slot)
                continue
        try:
            value = slot.on_log(run.view)
            if value is not None:
                if not PyCoro_CheckExact(value):
                    value = _await(value)
                task = start_coroutine(run.x.worker.loop, value, slot, [])
                if task is not None:
                    suspended = True
                    well = run.troubled is None or slot not in run.troubled
                    run._in_doubt(slot)
                    _watch_log(run.x.worker, slot, run.chain.plugins, task, well)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            run._in_trouble(slot)
            slot.failed("failures", error, now_ns())
    return suspended


def _watch_log(Worker worker, PluginSlot slot, PluginSet plugins, task, bint well):
    # An on_log that goes on: it has its budget, and the plugin is not closed under it. well: nothing else of it has failed.
    plugins.enter()
    handle = worker.loop.call_later(slot.timeout_ns / 1e9, task.cancel)

    def done(task):
        handle.cancel()
        if task.cancelled():
            slot.failed("timeouts", None, now_ns())
        elif task.exception() is not None:
            slot.failed("failures", task.exception(), now_ns())
        elif well and slot.failures:
            slot.went_well()
        plugins.leave()

    task.add_done_callback(done)
