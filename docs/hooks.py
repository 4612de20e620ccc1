"""Adds the pages that live in the root of the repository to the documentation site (a hook of mkdocs.yml)."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "NOTICE")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add `PAGES` as if they lay in docs/, with their links into docs/ adjusted."""
    root = Path(config.config_file_path).parent
    for name in PAGES:
        text = (root / name).read_text().replace("](docs/", "](")
        files.append(File.generated(config, name, content=text))
    return files
