import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support import ROOT


class Process:
    """A child process, started here, with its output in a file, and a folder for its temporary files."""

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        self._temporary = tempfile.TemporaryDirectory(prefix="d-", ignore_cleanup_errors=True)
        environment = dict(os.environ if environment is None else environment)
        environment["TMPDIR"] = self._temporary.name
        with log.open("ab") as output:
            self.child = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
            )

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """End it, by force if the signal does not within `seconds`; returns its exit status."""
        if self.child.poll() is None:
            self.child.send_signal(number)
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                self.child.kill()
        try:
            return self.child.wait()
        finally:
            self._temporary.cleanup()

    @property
    def temporary(self) -> Path:
        """The folder for its temporary files, which `stop` removes."""
        return Path(self._temporary.name)
