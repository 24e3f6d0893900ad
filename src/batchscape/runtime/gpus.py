"""Which GPUs of this machine a process computes on, so that two jobs never share one by chance."""

import fcntl
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from batchscape.errors import UserError
from batchscape.runtime.lock import try_lock

VISIBLE = "CUDA_VISIBLE_DEVICES"
SECONDS_BETWEEN_LOOKS = 0.2

log = logging.getLogger(__name__)


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    Where that is set, they are its entries as CUDA reads it: indices, or UUIDs (`GPU-…`, `MIG-…`), all of one kind, up
    to the first that is none; none at all if one stands there twice. An index is not looked up: whether there is such
    a device, CUDA says. Where it is not set, they are "0" to "n-1", all that the machine has; CUDA is not initialised
    for that (it would no longer heed CUDA_VISIBLE_DEVICES), for torch asks the driver's management library, NVML.
    """
    given = os.environ.get(VISIBLE)
    if given is None:
        import torch

        return [str(index) for index in range(torch.cuda.device_count())]
    names: list[str] = []
    kind = next((prefix for prefix in ("GPU-", "MIG-") if given.strip().startswith(prefix)), None)
    for entry in map(str.strip, given.split(",")):
        index = re.match(r"\+?(\d+)", entry)
        if not (entry.startswith(kind) if kind else index):
            break
        names.append(entry if kind else str(int(index[1])))
    return names if len(set(names)) == len(names) else []


@contextmanager
def acquire_gpus(
    count: int,
    jobs_per_gpu: int = 1,
    exclusive: bool = False,
    gpus: Sequence[str] | None = None,
    folder: Path | None = None,
) -> Iterator[list[str]]:
    """Hold `count` GPUs while the block runs: CUDA_VISIBLE_DEVICES names them, and so does what this yields.

    Waits until so many of `gpus` (by default, those visible) each have a free place of `jobs_per_gpu`; with `exclusive`
    (for timing), until nobody else is on them. A job takes all its GPUs at once or none, and who waits is not
    overtaken by a later job that could use the same GPUs. Call it before CUDA is initialised.

    The locks are files in `folder`, one for all users of the machine by default. The kernel releases them when the
    process ends, however it ends. One GPU must have one name: jobs that name it by its index do not see those that
    name it by its UUID.

    Raises UserError if there are fewer GPUs, or if the folder cannot be used.
    """
    gpus = visible_gpus() if gpus is None else list(gpus)
    if len(gpus) < count:
        given = f" ({VISIBLE}={os.environ[VISIBLE]})" if VISIBLE in os.environ else ""
        raise UserError(
            f"resources.devices: a job takes {count} GPUs, but {len(gpus) or 'none'} can be used here{given}; "
            "write fewer, or run where there are more"
        )
    if exclusive:
        jobs_per_gpu = 1
    with ExitStack() as stack:
        locks = _Locks(folder or _shared_folder(), stack)
        told = False
        with ExitStack() as queue:
            # In one order for all, so that no two wait for each other.
            for gpu in sorted(gpus):
                if not locks.take(f"gpu-{gpu}.queue", queue):
                    told = told or _tell(count, gpus)
                    locks.take(f"gpu-{gpu}.queue", queue, wait=True)
            while len(places := _free_places(locks, count, jobs_per_gpu, gpus)) < count:
                told = told or _tell(count, gpus)
                time.sleep(SECONDS_BETWEEN_LOOKS)
            for held in places.values():
                stack.enter_context(held)
        names = [gpu for gpu in gpus if gpu in places]
        with _visible(",".join(names)):
            yield names


@contextmanager
def _visible(names: str) -> Iterator[None]:
    before = os.environ.get(VISIBLE)
    os.environ[VISIBLE] = names
    try:
        yield
    finally:
        del os.environ[VISIBLE]
        if before is not None:
            os.environ[VISIBLE] = before


@contextmanager
def allocate_gpus(
    count: int, jobs_per_gpu: int = 1, exclusive: bool = False, managed_by_slurm: bool = False
) -> Iterator[list[str]]:
    """Hold the GPUs that a job of the workflow takes, or as many as the machine has if `exclusive`; yield their names.

    A job that takes none, or is on a machine without any, computes on the CPU; but for one of several nodes, whose GPUs
    are those that Slurm gave it on each (`managed_by_slurm`).
    """
    if managed_by_slurm:
        yield []
        return
    seen = len(visible_gpus()) if count else 0
    if not seen:
        with _visible(""):  # not on one that another job holds
            yield []
        return
    with acquire_gpus(min(count, seen) if exclusive else count, jobs_per_gpu, exclusive) as names:
        yield names


def _tell(count: int, gpus: Sequence[str]) -> bool:
    log.info("waiting until %d of the GPUs %s can be had", count, ", ".join(gpus))
    return True


def _free_places(locks: "_Locks", count: int, jobs_per_gpu: int, gpus: Sequence[str]) -> dict[str, ExitStack]:
    """Take a place on each of `count` GPUs, the emptiest first; return what holds them by GPU, none if too few."""
    places: dict[str, ExitStack] = {}
    with ExitStack() as stack:
        for place in range(jobs_per_gpu):
            for gpu in gpus:
                if len(places) < count and gpu not in places:
                    held = stack.enter_context(ExitStack())
                    # The device itself is shared by those who allow it, so that who wants it alone, with whatever
                    # `jobs_per_gpu` of another study, sees them all.
                    if locks.take(f"gpu-{gpu}", held, shared=jobs_per_gpu > 1) and (
                        jobs_per_gpu == 1 or locks.take(f"gpu-{gpu}.{place}", held)
                    ):
                        places[gpu] = held
                    else:
                        held.close()
        if len(places) < count:
            return {}
        stack.pop_all()
    return places


def _shared_folder() -> Path:
    # Slurm gives each job its devices, and numbers them from 0 in each.
    job = os.environ.get("SLURM_JOB_ID")
    return Path(tempfile.gettempdir()) / ("batchscape-gpus" + (f"-slurm-{job}" if job else ""))


class _Locks:
    """Lock files in a folder that other users may have made."""

    def __init__(self, folder: Path, stack: ExitStack):
        self.folder = folder
        self.warned = False
        try:
            try:
                folder.mkdir()
                folder.chmod(0o1777)  # all may make files, and none delete another's
            except FileExistsError:
                pass
            self.descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise UserError(f"{folder}: the folder of the GPUs' lock files cannot be used: {error.strerror}; delete it")
        stack.callback(os.close, self.descriptor)
        # What deletes old files from temporary folders (systemd-tmpfiles) leaves a folder alone while it is locked.
        # Where folders cannot be locked, as on NFS, that does not look either.
        try_lock(self.descriptor, fcntl.LOCK_SH)

    def take(self, name: str, stack: ExitStack, wait: bool = False, shared: bool = False) -> bool:
        """Lock a file until `stack` closes; without `wait`, return False if another one has it."""
        descriptor = self._open(name.replace("/", "_"))  # there are slashes in the names of some MIG devices
        how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        held = try_lock(descriptor, how)
        if held is False and wait:
            fcntl.flock(descriptor, how)
        elif held is False:
            os.close(descriptor)
            return False
        if held is None and not self.warned:
            self.warned = True
            log.warning("%s: the file system has no locks, so jobs may share a GPU; set TMPDIR to another", self.folder)
        stack.callback(os.close, descriptor)
        if held is not None:
            # By its own call, for processes that were forked meanwhile have the descriptor too.
            stack.callback(fcntl.flock, descriptor, fcntl.LOCK_UN)
        return True

    def _open(self, name: str) -> int:
        """Open a lock file for writing, as an exclusive lock needs it on NFS, and make it if there is none."""
        flags = os.O_RDWR | os.O_NOFOLLOW
        while True:
            try:
                # Without O_CREAT first: in a folder like this Linux forbids it on another user's file.
                return os.open(name, flags, dir_fd=self.descriptor)
            except FileNotFoundError:
                pass
            except OSError as error:
                with suppress(OSError):  # another user's, of an earlier version, which only its owner can write
                    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self.descriptor)
                raise UserError(f"{self.folder / name}: cannot be opened: {error.strerror}; delete it")
            try:
                descriptor = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=self.descriptor)
            except FileExistsError:
                continue
            os.fchmod(descriptor, 0o666)  # whatever the umask
            return descriptor
