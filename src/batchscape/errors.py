"""The exception for errors that the user can fix."""


class UserError(Exception):
    """An error in a config, a path or the data; its message is one line that says how to fix it."""


# Of torch, CUDA, cuDNN, cuBLAS and the C++ library; few of these errors have their own type.
OUT_OF_MEMORY_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm",
    "std::bad_alloc",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the memory of a device or of the machine is exhausted."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY_MESSAGES)
