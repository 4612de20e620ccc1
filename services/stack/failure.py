"""The exception for what a user can fix: a bad setting, a missing program, a failed download."""


class Failure(Exception):
    """Ends a command with exit status 1. The text is one line: what is wrong and how to fix it."""
