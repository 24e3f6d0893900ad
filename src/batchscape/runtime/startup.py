"""Faster imports in jobs and their worker processes: import this first, and call `finish_startup` after all imports.

In between, garbage collection is disabled: imports create no garbage, and repeated passes over everything imported so
far take a sixth to a quarter of the time of importing torch and Lightning. Also, Ctrl-C ends the process silently;
otherwise it would print a traceback from within a library that looks like a broken installation.
"""

import gc
import signal

from batchscape.runtime.allocator import keep_freed_memory

gc.disable()
handles_sigint = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if handles_sigint:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish_startup() -> None:
    """Enable garbage collection, except of the objects that exist already, and the default handling of Ctrl-C.

    Also make the process keep the memory of freed tensors.
    """
    keep_freed_memory()
    gc.freeze()
    gc.enable()
    if handles_sigint:
        signal.signal(signal.SIGINT, signal.default_int_handler)
