from pathlib import Path

import pytest
from dotenv import dotenv_values

from router.errors import BadSettings
from router.keys import read_keys
from router.litellm.config import read_config
from router.models import read_models
from router.settings import ROOT, read_settings

GOOD = "q7Zr3kX9vT2mB6nL8wY4dF1hJ5cG0sPa"


@pytest.fixture(autouse=True)
def example(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in dotenv_values(ROOT / ".env.example").items():
        monkeypatch.setenv(name, value or "")
    monkeypatch.setenv("LITELLM_MASTER_KEY", GOOD)


def test_the_example_and_a_key_are_enough() -> None:
    settings = read_settings()
    config = read_config(ROOT / settings.litellm_config)
    assert set(read_models(settings, config, [])) == {"coder", "general"}
    assert list(read_keys(settings)) == ["master"]


@pytest.mark.parametrize(
    "key",
    [
        "",
        "short",
        "sk-1234" + "x" * 40,
        "a" * 40,
        "changeme-" + GOOD,
        "q7Zr3kX9 T2mB6nL8wY4dF1hJ5cG0sPa",
        "é" + GOOD,
    ],
)
def test_a_weak_key_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("LITELLM_MASTER_KEY", key)
    with pytest.raises(BadSettings) as caught:
        read_settings()
    message = str(caught.value)
    assert "LITELLM_MASTER_KEY" in message
    assert "\n" not in message
    assert not key or key not in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ROUTER_PORT", "99999"),
        ("ROUTER_PORT", "http"),
        ("BIND_ADDRESS", "everywhere"),
        ("CONTEXT_RATIO", "1.5"),
        ("QUEUE_MAX", "-1"),
        ("TRUNCATE", "maybe"),
        ("MODEL_ALIASES", "gpt-4o=general"),
        ("REDIS_URL", "localhost:6379"),
        ("LIMITS_WITHOUT_REDIS", "ajar"),
        ("METRICS_OPEN_TO", "the office"),
        ("CORS_ORIGINS", "notes.example"),
        ("PROFILE", "../../etc"),
        ("LOG_DAYS", "0"),
    ],
)
def test_an_impossible_value_names_its_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings, match=f"^{name} ") as caught:
        read_settings()
    assert "\n" not in str(caught.value)


def test_a_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUEUE_MAX")
    with pytest.raises(BadSettings, match="QUEUE_MAX is missing"):
        read_settings()


def test_an_unknown_profile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROFILE", "quantum")
    settings = read_settings()
    with pytest.raises(BadSettings, match="PROFILE"):
        read_models(settings, read_config(ROOT / settings.litellm_config), [])


def test_keys_of_the_file_have_names_and_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"ann: {GOOD[::-1]}\nbob: {{key: {GOOD.swapcase()}, requests_per_minute: 7}}\n")
    monkeypatch.setenv("KEYS_FILE", str(path))
    monkeypatch.setenv("REQUESTS_PER_MINUTE", "60")
    keys = read_keys(read_settings())
    assert {name: key.requests_per_minute for name, key in keys.items()} == {
        "master": 60,
        "ann": 60,
        "bob": 7,
    }


@pytest.mark.parametrize("content", ["ann: short", "ann: {}", "just text", "a: [", f"ann: {GOOD}"])
def test_a_bad_keys_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(content)
    monkeypatch.setenv("KEYS_FILE", str(path))
    with pytest.raises(BadSettings, match="KEYS_FILE") as caught:
        read_keys(read_settings())
    assert "\n" not in str(caught.value)
    assert GOOD not in str(caught.value)
