"""The environment variables that pass from the user's shell to the services: those on this list, no others.

What else a shell may hold belongs to other programs, and would change or break the services: VLLM_API_KEY,
DATABASE_URL, STREAMLIT_*, PYTHONPATH, SSL_CERT_FILE, and the proxies, which are for the internet. Services
need no internet, because models are fetched before they start. What is meant for the engines belongs in the
profile's engine.env.
"""

import os
import pwd
from fnmatch import fnmatchcase
from pathlib import Path

PASSED = (
    *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ"),
    "HF_HOME",  # where the models are
    *("LANG", "LANGUAGE", "LC_*", "TERM", "COLORTERM", "NO_COLOR", "COLUMNS"),
    # Where NVIDIA's driver and CUDA are, and which GPUs to use.
    *(
        "LD_LIBRARY_PATH",
        "CUDA_VISIBLE_DEVICES",
        "CUDA_DEVICE_ORDER",
        "CUDA_HOME",
        "CUDA_PATH",
        "NVIDIA_*",
        "NCCL_*",
    ),
)


def passed() -> dict[str, str]:
    """Those of this process's variables that are on the list, and a home folder if there is none."""
    chosen = {
        name: value for name, value in os.environ.items() if any(fnmatchcase(name, each) for each in PASSED)
    }
    # The files are in UTF-8, whatever the locale says.
    return {"HOME": _home()} | chosen | {"PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}


def _home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a container's user without an entry
        return str(Path.cwd())
