"""Compares models before one is chosen: small problems whose solutions are run."""
