"""The command line, the supervision of the services, and the environments they run in.

Entry point: `__main__.py`. `tasks.py` is the table of all tasks; `commands/` has one file for each command.
"""
