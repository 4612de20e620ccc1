"""`pin-images` against a registry that speaks the distribution API."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.stack.commands import pin_images
from services.stack.failure import Failure

MANIFEST = b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}'
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
OLD = f"sha256:{'0' * 64}"


@pytest.fixture
def registry() -> Iterator[str]:
    """A registry that has tools/thing:1.2.3 and nothing else; gives its host."""

    class Registry(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            known = self.path == "/v2/tools/thing/manifests/1.2.3"
            # A registry that is not asked for an index gives the manifest of one platform only.
            accepted = "application/vnd.oci.image.index.v1+json" in self.headers["Accept"]
            self.send_response(200 if known and accepted else 404)
            self.send_header("Docker-Content-Digest", DIGEST)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def checkout(root: Path, registry: str, tag: str = "1.2.3") -> dict[str, Path]:
    """A checkout whose files name images in every way that ours do."""
    made = {
        "compose.yaml": f"services:\n  a:\n    image: {registry}/tools/thing:{tag}\n    init: true\n"
        "  ours:\n    image: duoserve/router\n",
        "router/Dockerfile": f"ARG PYTHON_IMAGE={registry}/tools/thing:{tag}@{OLD}\nFROM ${{PYTHON_IMAGE}}\n",
        "deploy/kubernetes/base/a.yaml": f"containers:\n  - image: {registry}/tools/thing:{tag}\n",
    }
    for name, text in made.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return {name: root / name for name in made}


def test_digests_are_written_beside_the_versions(
    registry: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = checkout(tmp_path, registry)
    pin_images.pin(tmp_path)
    pinned = f"{registry}/tools/thing:1.2.3@{DIGEST}"
    assert f"    image: {pinned}\n    init: true\n" in files["compose.yaml"].read_text()
    assert "image: duoserve/router\n" in files["compose.yaml"].read_text()
    assert files["router/Dockerfile"].read_text().startswith(f"ARG PYTHON_IMAGE={pinned}\nFROM")
    assert files["deploy/kubernetes/base/a.yaml"].read_text() == f"containers:\n  - image: {pinned}\n"
    assert {pin.digest for pin in pin_images.pins(tmp_path)} == {DIGEST}
    capsys.readouterr()
    pin_images.pin(tmp_path)
    assert "pinned to these already" in capsys.readouterr().out


@pytest.mark.parametrize("fault", ["unknown tag", "no registry"])
def test_nothing_is_written_when_one_image_is_not_found(registry: str, tmp_path: Path, fault: str) -> None:
    files = checkout(tmp_path, registry if fault == "unknown tag" else "127.0.0.1:1", tag="1.2.4")
    before = {name: path.read_text() for name, path in files.items()}
    with pytest.raises(Failure, match=r"tools/thing:1\.2\.4.*nothing was written"):
        pin_images.pin(tmp_path)
    assert {name: path.read_text() for name, path in files.items()} == before


def test_names_are_read_as_docker_reads_them() -> None:
    assert pin_images.registry_of("python") == ("registry-1.docker.io", "library/python")
    assert pin_images.registry_of("vllm/vllm-openai") == ("registry-1.docker.io", "vllm/vllm-openai")
    assert pin_images.registry_of("nvcr.io/nvidia/k8s/dcgm-exporter") == (
        "nvcr.io",
        "nvidia/k8s/dcgm-exporter",
    )
    assert pin_images.registry_of("localhost:5000/a") == ("localhost:5000", "a")


def test_every_image_of_this_checkout_is_found() -> None:
    """So that none escapes pinning: each file that starts from or runs an image has one here."""
    found = {(pin.file.name, pin.name) for pin in pin_images.pins()}
    assert {name for file, name in found if file == "compose.yaml"} == {
        "vllm/vllm-openai",
        "prom/prometheus",
        "grafana/grafana",
        "nvcr.io/nvidia/k8s/dcgm-exporter",
    }
    assert {name for file, name in found if file.endswith(".yaml") and file != "compose.yaml"} == {
        "vllm/vllm-openai",
        "redis",
    }
    assert [pin.name for pin in pin_images.pins() if pin.file.name == "Dockerfile"] == ["python"] * 3
