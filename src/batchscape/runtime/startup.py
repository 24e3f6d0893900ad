"""For jobs, and processes that they start: import this first, and call `finish_startup` when all libraries are there.

Between the two Python does not look for garbage, of which an import makes none. It would look through all that has been
imported so far, again and again: a sixth to a quarter of the time that torch and Lightning take to be there. And Ctrl-C
ends the process without a word; else it would come out of the midst of a library, as a traceback that looks like
damage.
"""

import gc
import signal

gc.disable()
handles_sigint = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if handles_sigint:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish_startup() -> None:
    """Have Python look for garbage from now on, but not among what is there already, and not when the process ends."""
    gc.freeze()
    gc.enable()
    if handles_sigint:
        signal.signal(signal.SIGINT, signal.default_int_handler)
