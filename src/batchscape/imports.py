"""For processes that work with torch: import this first, and call `imported` when all libraries are there.

Between the two Python does not look for garbage, of which an import makes none. It would look through all that has been
imported so far, again and again: a sixth to a quarter of the time that torch and Lightning take to be there.
"""

import gc

gc.disable()


def imported() -> None:
    """Have Python look for garbage from now on, but not among what is there already, and not when the process ends."""
    gc.freeze()
    gc.enable()
