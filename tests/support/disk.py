import subprocess
from pathlib import Path

import pytest


class Disk:
    """A small file system of its own, until `remove`; skips the test where the user cannot mount one."""

    def __init__(self, folder: Path, kilobytes: int = 512) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        if subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("this user cannot mount a small file system")

    def spoil(self, how: str) -> None:
        """Make it full, or read-only."""
        if how == "read-only":
            self._mount("ro")
            return
        with (self.folder / "other").open("wb", buffering=0) as other:
            try:
                while other.write(b"x" * 4096):
                    pass
            except OSError:
                pass

    def repair(self, how: str) -> None:
        if how == "read-only":
            self._mount("rw")
        else:
            (self.folder / "other").unlink()

    def _mount(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", str(self.folder)], check=True)

    def remove(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
