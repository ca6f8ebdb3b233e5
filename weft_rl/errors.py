"""The exceptions that the command line treats apart from bugs."""


class UserError(ValueError):
    """The user's mistake: one line with the key or file, the value and the cure. Exit status 2."""


class Interrupted(Exception):
    """The run stopped before its end and can be resumed; the text says how. Exit status 3."""


class OutOfMemory(Exception):
    """A device's memory was too small for a stage; the text says what to change. Exit status 1."""
