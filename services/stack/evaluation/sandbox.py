"""Runs a program that a model wrote, without network and settings, and with few resources."""

import resource
import shutil
import subprocess
import sys
import tempfile

SECONDS = 5
MEMORY = 512 * 2**20
FILE = 2**20


def passes(program: str) -> bool:
    """Whether `program` (Python) ends without an error and within the limits.

    It runs in an empty folder with an empty environment and, if users may create namespaces on this machine,
    without a network. That prevents accidents; it does not stop a malicious program.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            return (
                subprocess.run(
                    [*_without_network(), sys.executable, "-I", "-c", program],
                    cwd=folder,
                    env={},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=SECONDS * 2,
                    preexec_fn=_limit,
                    start_new_session=True,
                ).returncode
                == 0
            )
        except subprocess.TimeoutExpired:
            return False


def _without_network() -> list[str]:
    unshare = shutil.which("unshare")
    if unshare is None:
        return []
    command = [unshare, "--net", "--map-root-user", "--"]
    works = subprocess.run([*command, "true"], capture_output=True).returncode == 0
    return command if works else []


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
