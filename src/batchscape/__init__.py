"""What does the batch size do to training, and how should the learning rate follow it?"""

import importlib.util
import sys

# Locks of files, without which two jobs could write one file; every module below may count on them.
if importlib.util.find_spec("fcntl") is None:
    sys.exit("Batchscape runs on Linux and macOS; on Windows, install and run it in WSL")
