"""One of the processes that the launcher starts: `python -m batchscape.training.worker MODULE FUNCTION ARGUMENTS`."""

if __name__ == "__main__":  # not for those who import this to know its name
    import batchscape.runtime.startup

import json
import logging
import os
import sys
import threading
import time
from importlib import import_module

from torch.distributed.elastic.multiprocessing.errors import record

from batchscape.training.distributed import PeerDisconnected

# The process that a peer misses fails first: time for the agent to see that before this one tells what it felt of it.
ROOT_CAUSE_GRACE_PERIOD = 20.0


@record
def main(module: str, function: str, arguments: str) -> None:
    """Call a function; whatever it raises ends the process and all its peers."""
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()
    first = os.environ["RANK"] == "0"
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("batchscape").setLevel(logging.INFO if first else logging.WARNING)
    try:
        work = getattr(import_module(module), function)
        batchscape.runtime.startup.finish_startup()
        work(**json.loads(arguments))
    except PeerDisconnected:
        time.sleep(ROOT_CAUSE_GRACE_PERIOD)
        raise


def _exit_with_parent(parent: int) -> None:
    """End this process when its parent is gone: the agent may be killed in a way that lets it do nothing."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
