import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from services.stack.client import client
from services.stack.failure import Failure

SHELLS = [
    {"HTTP_PROXY": "http://127.0.0.1:9"},
    {"http_proxy": "http://127.0.0.1:9", "NO_PROXY": "::1/128"},
    {"ALL_PROXY": "socks://127.0.0.1:9"},
    {"ALL_PROXY": "socks5://127.0.0.1:9"},
    {"SSL_CERT_FILE": "/gone.pem"},
]


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def here() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shells_proxies_are_not_for_this_machine(
    here: str, shell: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in shell.items():
        monkeypatch.setenv(name, value)
    with client(here, timeout=30) as asked:
        assert asked.get(f"{here}/health").status_code == 200


def test_a_proxy_that_cannot_be_used_for_another_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:9")
    with pytest.raises(Failure, match="ALL_PROXY"):
        client("https://ai.example.com")
