"""One process of the launcher: `python -m batchscape.training.worker MODULE FUNCTION ARGUMENTS LOG_LEVEL`."""

if __name__ == "__main__":  # not when the module is only imported for its name
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

# Seconds that a process waits before it fails because a peer disconnected: until then the agent should have seen the
# failure of that peer, and reports it as the cause.
ROOT_CAUSE_GRACE_PERIOD = 20.0


@record
def main(module: str, function: str, arguments: str, log_level: str) -> None:
    """Call a function with arguments that are JSON; any exception ends this process and all its peers.

    The main process logs at the level of the launching process, the others only warnings.
    """
    threading.Thread(target=_exit_with_parent, args=(os.getppid(),), daemon=True).start()
    is_main_process = os.environ["RANK"] == "0"
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("batchscape").setLevel(int(log_level) if is_main_process else logging.WARNING)
    try:
        work = getattr(import_module(module), function)
        batchscape.runtime.startup.finish_startup()
        work(**json.loads(arguments))
    except PeerDisconnected:
        time.sleep(ROOT_CAUSE_GRACE_PERIOD)
        raise


def _exit_with_parent(parent: int) -> None:
    """End this process once its parent has ended: a killed agent cannot end its processes itself."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)  # the public way to end a process from a thread, despite its name


if __name__ == "__main__":
    main(*sys.argv[1:])
