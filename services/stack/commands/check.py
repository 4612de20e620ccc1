"""`./run check` and `./run fmt`: what to run before every commit."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from services.stack import environments
from services.stack.console import console
from services.stack.environments import BY_NAME, ROOT

# Arguments of the test environment's Python, by what they check.
STATIC = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy", "."],
}
# The fast tests are those that start no service.
_TESTS = {"tests": ["pytest", "tests/unit", "-q", "-p", "no:cacheprovider", "-n", "2"]}
_FMT = (["ruff", "check", "--fix", "."], ["ruff", "format", "."])


def check() -> int:
    """Check the whole checkout, everything at once; returns 0 when all is well, else 1."""
    environments.ensure("dev")
    checks = STATIC | _TESTS
    with ThreadPoolExecutor(len(checks)) as pool:
        passed = list(pool.map(_check, checks, checks.values()))
    return 0 if all(passed) else 1


def fmt() -> int:
    """Format all files and apply safe fixes; returns ruff's exit status, 1 when something needs a hand."""
    environments.ensure("dev")
    return max(subprocess.run(_command(arguments), cwd=ROOT).returncode for arguments in _FMT)


def _check(name: str, arguments: list[str]) -> bool:
    began = time.monotonic()
    answer = subprocess.run(
        _command(arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    passed = answer.returncode == 0
    if not passed:
        console.print(answer.stdout, markup=False)
    console.print(f"{'ok  ' if passed else 'FAIL'}  {name:6} {time.monotonic() - began:4.0f} s")
    return passed


def _command(arguments: list[str]) -> list[str]:
    return [str(BY_NAME["dev"].python), "-m", *arguments]
