"""The terminal."""

from rich.console import Console

# Paths and commands stay on one line, so that they can be copied.
console = Console(highlight=False, soft_wrap=True)
