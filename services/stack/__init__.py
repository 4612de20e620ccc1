"""Keeps the service running: environments, supervision, status, doctor. Entry point: `__main__.py`."""
