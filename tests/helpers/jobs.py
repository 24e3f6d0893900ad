"""Code of jobs that tests run in other processes, and of the file systems that they see."""

# Logs what it is given to a log file, and stays.
JOB = """
import sys, time
from batchscape.runtime.job import job_log
with job_log(sys.argv[1]):
    print(sys.argv[2], end="", flush=True)
    time.sleep(60)
"""

# A file system without locks, and one as NFS, on which an exclusive lock needs a file that is open for writing.
NO_LOCKS = """
import errno, fcntl
def flock(descriptor, how):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""
AS_NFS = """
import errno, fcntl, os
real = fcntl.flock
def flock(descriptor, how):
    if how & fcntl.LOCK_EX and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "Bad file descriptor")
    if os.path.isdir(f"/proc/self/fd/{descriptor}"):
        raise OSError(errno.EBADF, "Bad file descriptor")
    return real(descriptor, how)
fcntl.flock = flock
"""
