"""The documentation site builds without a network, has no dead link, and asks no other host for anything."""

import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from services.stack import environments
from services.stack.environments import BY_NAME, ROOT

# Nothing listens on the discard port of this machine: whatever is fetched while the site is built fails.
NO_NETWORK = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}

# Written by a running service or by a user, so not in a checkout.
MADE_LATER = ("data/", "reports/", "models/", "config/keys.yaml")


class Assets(HTMLParser):
    """Collects what a browser loads by itself with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.urls.append(values.get("src") or "")
        if tag == "link":
            self.urls.append(values.get("href") or "")


def _build(site: Path, config: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    environments.ensure("docs")
    mkdocs = BY_NAME["docs"].python.with_name("mkdocs")
    return subprocess.run(
        [str(mkdocs), "build", "--strict", "-f", str(config), "-d", str(site)],
        env=os.environ | NO_NETWORK,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = _build(folder)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    pages = {path.relative_to(site).parent.as_posix() for path in site.rglob("index.html")}
    written = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert written | {".", "CONTRIBUTING", "CHANGELOG", "benchmarks"} <= pages
    assert (site / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert not list(site.rglob("requirements.*"))


def test_a_page_loads_nothing_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        assets = Assets()
        assets.feed(page.read_text())
        foreign = [url for url in assets.urls if re.match(r"(https?:)?//", url)]
        assert not foreign, f"{page}: {foreign}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import", style.read_text()), style


def test_every_file_that_is_named_exists() -> None:
    """Paths in backticks are those of the checkout; the placeholders in them are in capitals."""
    named = re.compile(r"`((?:\.?\w[\w.-]*/)+[\w-]+\.(?:py|js|md|toml|ya?ml|env|in|lock|json|txt))`")
    missing = [
        f"{page.name}: {path}"
        for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
        for path in named.findall(page.read_text())
        if not re.search(r"[A-Z]{3}", path) and not (ROOT / path).exists() and not path.startswith(MADE_LATER)
    ]
    assert not missing


def test_a_dead_link_fails_the_build(tmp_path: Path) -> None:
    """In a copy of the pages, with a link to a missing page and one to a missing heading."""
    for name in ("mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "NOTICE", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").write_text("[gone](docs/gone.md) [nowhere](docs/operations.md#nowhere)\n")
    built = _build(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert built.returncode != 0
    assert "gone.md" in built.stderr and "#nowhere" in built.stderr


def test_the_architecture_lists_every_file() -> None:
    """The tree in docs/architecture.md: a line for each module, indented by folder."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    tree = text.partition("## Every file")[2].split("```")[1]
    folders: list[str] = []
    listed = []
    for line in tree.strip().splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders[depth:] = [name] if name.endswith("/") else []
        if not name.endswith("/"):
            assert len(line.split()) > 1, f"{name} is not described"
            listed.append("".join(folders[:depth]) + name)
    files = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    rooms = ("loadtests/", "mock_engine/", "router/", "services/", "ui/")
    modules = [f for f in files.stdout.split() if f.startswith(rooms) and not f.endswith("__init__.py")]
    assert sorted(listed) == sorted(modules)


def test_the_changelog_has_the_version() -> None:
    (version,) = re.findall(r'^version = "(.+)"$', (ROOT / "pixi.toml").read_text(), re.M)
    newest = re.search(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest and newest.group(1) == version
