"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake in a config, a path or the data; its message is one line that says how to mend it."""


# As torch, CUDA, cuDNN, cuBLAS and the C++ library say it; few of these errors have a type of their own.
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
    """Return whether an error says that the memory of a device or of the machine does not suffice."""
    return isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY_MESSAGES)
