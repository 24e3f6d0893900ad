"""GPU allocation between the jobs on a machine: two jobs share a GPU only where the study allows it."""

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
from batchscape.runtime.states import ACQUIRED_GPUS, WAITING_FOR_GPUS, record_state

VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL_INTERVAL = 0.2

log = logging.getLogger(__name__)


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that this process may use, without initializing CUDA.

    An initialized CUDA ignores later changes of CUDA_VISIBLE_DEVICES, so torch asks the driver's management library
    (NVML) instead.

    Returns:
        The entries of CUDA_VISIBLE_DEVICES as CUDA reads them: indices, or UUIDs (`GPU-…`, `MIG-…`), all of one kind,
        up to the first invalid entry; empty if an entry is repeated. Whether a device with that index exists is not
        checked. If the variable is not set, "0" to "n-1" for the n GPUs of the machine.
    """
    value = os.environ.get(VISIBLE)
    if value is None:
        import torch

        return [str(index) for index in range(torch.cuda.device_count())]
    names: list[str] = []
    kind = next((prefix for prefix in ("GPU-", "MIG-") if value.strip().startswith(prefix)), None)
    for entry in map(str.strip, value.split(",")):
        if kind:
            if not entry.startswith(kind):
                break
            names.append(entry)
        elif index := re.match(r"\+?(\d+)", entry):
            names.append(str(int(index[1])))
        else:
            break
    return names if len(set(names)) == len(names) else []


@contextmanager
def acquire_gpus(
    count: int,
    jobs_per_gpu: int = 1,
    exclusive: bool = False,
    gpus: Sequence[str] | None = None,
    folder: Path | None = None,
) -> Iterator[list[str]]:
    """Hold `count` GPUs while the block runs, and set CUDA_VISIBLE_DEVICES to them.

    Waits until enough GPUs are free. A job takes all of its GPUs at once or none, and a job that waits is not overtaken
    by a later one that could use the same GPUs. Must be called before CUDA is initialized.

    The locks are files, which the kernel releases when the process ends, however it ends. Jobs must name a GPU the same
    way: one that uses the index of a GPU does not see the lock of one that uses its UUID.

    Args:
        count: How many GPUs to hold.
        jobs_per_gpu: How many jobs may share a GPU.
        exclusive: Whether no other job may use these GPUs meanwhile, as for timing.
        gpus: Names of the GPUs to choose from, by default those of `visible_gpus`.
        folder: Folder of the lock files, by default one that all users of the machine share.

    Yields:
        The names of the GPUs.

    Raises:
        UserError: If there are fewer GPUs than `count`, or if the folder cannot be used.
    """
    gpus = visible_gpus() if gpus is None else list(gpus)
    if len(gpus) < count:
        setting = f" ({VISIBLE}={os.environ[VISIBLE]})" if VISIBLE in os.environ else ""
        raise UserError(
            f"resources.devices: a job needs {count} GPUs, but {len(gpus) or 'none'} can be used here{setting}; "
            "lower it, or run on a machine with more GPUs"
        )
    if exclusive:
        jobs_per_gpu = 1
    with ExitStack() as stack:
        locks = _Locks(folder or _shared_folder(), stack)
        waited = False
        with ExitStack() as queue:
            # All jobs queue in the same order, so that no two wait for each other.
            for gpu in sorted(gpus):
                if not locks.acquire(f"gpu-{gpu}.queue", queue):
                    waited = waited or _report_wait(count, gpus)
                    locks.acquire(f"gpu-{gpu}.queue", queue, wait=True)
            while len(slots := _acquire_slots(locks, count, jobs_per_gpu, gpus)) < count:
                waited = waited or _report_wait(count, gpus)
                time.sleep(POLL_INTERVAL)
            for slot in slots.values():
                stack.enter_context(slot)
        names = [gpu for gpu in gpus if gpu in slots]
        if waited:
            record_state(ACQUIRED_GPUS, gpus=names)
        with _visible(",".join(names)):
            yield names


@contextmanager
def _visible(names: str) -> Iterator[None]:
    """Set CUDA_VISIBLE_DEVICES while the block runs."""
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
    """Hold the GPUs of a job of the workflow while the block runs.

    A job without GPUs, or on a machine that has none, sees no GPU and computes on the CPU.

    Args:
        count: How many GPUs the job requests; with `exclusive`, at most this many, as the machine has.
        jobs_per_gpu: How many jobs may share a GPU.
        exclusive: Whether no other job may use these GPUs meanwhile.
        managed_by_slurm: Whether the job runs on several nodes, with the GPUs that Slurm gave it on each. Then nothing
            is held or changed.

    Yields:
        The names of the GPUs that are held.

    Raises:
        UserError: If the machine has GPUs, but fewer than `count`, or if the lock files cannot be used.
    """
    if managed_by_slurm:
        yield []
        return
    num_visible = len(visible_gpus()) if count else 0
    if not num_visible:
        with _visible(""):  # or it could compute on a GPU that another job holds
            yield []
        return
    with acquire_gpus(min(count, num_visible) if exclusive else count, jobs_per_gpu, exclusive) as names:
        yield names


def _report_wait(count: int, gpus: Sequence[str]) -> bool:
    log.info("waiting for %d free GPUs of %s", count, ", ".join(gpus))
    record_state(WAITING_FOR_GPUS, count=count, gpus=list(gpus))
    return True


def _acquire_slots(locks: "_Locks", count: int, jobs_per_gpu: int, gpus: Sequence[str]) -> dict[str, ExitStack]:
    """Lock a slot on each of `count` GPUs, the emptiest first; return the locks by GPU, none if too few are free."""
    slots: dict[str, ExitStack] = {}
    with ExitStack() as stack:
        for number in range(jobs_per_gpu):
            for gpu in gpus:
                if len(slots) < count and gpu not in slots:
                    slot = stack.enter_context(ExitStack())
                    # Jobs that share a GPU share the lock of the GPU itself, so that a job that needs it exclusively
                    # sees them all, whatever `jobs_per_gpu` their study has.
                    if locks.acquire(f"gpu-{gpu}", slot, shared=jobs_per_gpu > 1) and (
                        jobs_per_gpu == 1 or locks.acquire(f"gpu-{gpu}.{number}", slot)
                    ):
                        slots[gpu] = slot
                    else:
                        slot.close()
        if len(slots) < count:
            return {}
        stack.pop_all()
    return slots


def _shared_folder() -> Path:
    # Slurm gives each job its own devices, and numbers them from 0 in each.
    job = os.environ.get("SLURM_JOB_ID")
    return Path(tempfile.gettempdir()) / ("batchscape-gpus" + (f"-slurm-{job}" if job else ""))


class _Locks:
    """Lock files in a folder that another user may have created."""

    def __init__(self, folder: Path, stack: ExitStack):
        self.folder = folder
        self.has_warned = False
        try:
            try:
                folder.mkdir()
                folder.chmod(0o1777)  # all users may create files, and nobody can delete those of another
            except FileExistsError:
                pass
            self.descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise UserError(f"{folder}: the folder of the GPU lock files cannot be used: {error.strerror}; delete it")
        stack.callback(os.close, self.descriptor)
        # systemd-tmpfiles, which deletes old files from temporary folders, skips a folder that is locked. Where folders
        # cannot be locked, as on NFS, it does not run either.
        try_lock(self.descriptor, fcntl.LOCK_SH)

    def acquire(self, name: str, stack: ExitStack, wait: bool = False, shared: bool = False) -> bool:
        """Lock a file until `stack` closes; without `wait`, return False if another process holds the lock."""
        descriptor = self._open(name.replace("/", "_"))  # the names of some MIG devices contain slashes
        operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        is_locked = try_lock(descriptor, operation)
        if is_locked is False and wait:
            fcntl.flock(descriptor, operation)
        elif is_locked is False:
            os.close(descriptor)
            return False
        if is_locked is None and not self.has_warned:
            self.has_warned = True
            log.warning("%s: the file system has no locks, so jobs may share a GPU; set TMPDIR to another", self.folder)
        stack.callback(os.close, descriptor)
        if is_locked is not None:
            # Unlocked explicitly, because processes that were forked meanwhile hold the descriptor as well.
            stack.callback(fcntl.flock, descriptor, fcntl.LOCK_UN)
        return True

    def _open(self, name: str) -> int:
        """Open a lock file for writing, as an exclusive lock requires on NFS; create it if there is none."""
        flags = os.O_RDWR | os.O_NOFOLLOW
        while True:
            try:
                # Without O_CREAT first: in a sticky folder Linux forbids it for a file of another user.
                return os.open(name, flags, dir_fd=self.descriptor)
            except FileNotFoundError:
                pass
            except OSError as error:
                with suppress(OSError):  # created by an earlier version, so that only its owner can write to it
                    return os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self.descriptor)
                raise UserError(f"{self.folder / name}: cannot be opened: {error.strerror}; delete it")
            try:
                descriptor = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=self.descriptor)
            except FileExistsError:
                continue
            os.fchmod(descriptor, 0o666)  # regardless of the umask
            return descriptor
