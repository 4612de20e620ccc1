"""Small coding problems for comparing models: their solutions are run. Entry point: command.py."""
