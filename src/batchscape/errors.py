"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake in a config, a path or the data; its message is one line that says how to mend it."""
