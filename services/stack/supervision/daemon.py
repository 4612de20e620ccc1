"""Runs supervisor in the foreground, with a log that cannot stop it.

supervisor itself ends with a traceback when the disk with its log is full.

`python -m services.stack.supervision.daemon CONFIGURATION`
"""

import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from services.stack.supervision.logfile import LogFile, LogStream


def main() -> None:
    """Run until supervisor is told to stop."""
    stream = LogStream(LogFile.of_service(Path(os.environ["DUOSERVE_HOME"]), "supervisor"))
    with redirect_stdout(stream), redirect_stderr(stream):
        from supervisor import supervisord  # it keeps the standard error that it finds when it is imported

        supervisord.main(["--nodaemon", "-c", sys.argv[1]])


if __name__ == "__main__":
    main()
