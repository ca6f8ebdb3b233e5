"""Exceptions that commands report in one line; anything else is a bug."""


class UserError(ValueError):
    """Invalid input: one line with key or file, value and fix. Exit status 2."""


class Interrupted(Exception):
    """The run stopped and can be resumed; the message says how. Exit status 3."""


class OutOfMemory(Exception):
    """A device ran out of memory; the message says what to change. Exit status 1."""
