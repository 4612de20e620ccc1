"""Runs supervisor in the foreground, with a log that cannot stop it.

supervisor itself ends with a traceback when the disk with its log is full.

`python -m services.stack.supervision.daemon CONFIGURATION`
"""

import os
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from services.stack.supervision.logfile import LogFile, LogStream


def main() -> None:
    """Run until supervisor is told to stop."""
    stream = LogStream(LogFile.of_service(Path(os.environ["DUOSERVE_HOME"]), "supervisor"))
    with redirect_stdout(stream), redirect_stderr(stream):
        # It keeps the standard error that it finds when it is imported.
        from supervisor import options, supervisord

        class Options(options.ServerOptions):  # type: ignore[misc]
            def fork(self) -> int:
                """Fork; SIGTERM stays blocked in the child.

                Until the child becomes a guard it has the supervisor's handlers, and would lose the signal.
                Blocked, it is there when the guard lets it through.
                """
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
                child = -1
                try:
                    child = os.fork()
                finally:
                    if child:
                        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
                return child

        chosen = Options()
        chosen.realize(["--nodaemon", "-c", sys.argv[1]])
        chosen.first, chosen.test = True, False  # as supervisor's own `main` sets them
        supervisord.go(chosen)
        chosen.close_httpservers()


if __name__ == "__main__":
    main()
