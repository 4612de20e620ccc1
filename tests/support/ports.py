import os
import random
import socket
from pathlib import Path

_GIVEN: set[int] = set()
_RANDOM = random.SystemRandom()  # of its own: Hypothesis seeds the other one


def free_port() -> int:
    """A port of the loopback interface that is free now, never the same one twice.

    What will listen there may take a minute to start. So it is below the ports that the kernel gives to
    connections, and each process of one pytest run has its own share.
    """
    connections = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        port = _RANDOM.randrange(10_000, max(20_000, connections))
        if port % processes != process or port in _GIVEN:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _GIVEN.add(port)
        return port


def has_ipv6() -> bool:
    """Whether this machine has the loopback address ::1."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
