"""What a user is told when something cannot be done."""


class Failure(Exception):
    """Ends a command with exit status 1. The text is one line: what is wrong and the remedy."""
