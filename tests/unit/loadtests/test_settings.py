import pytest

from loadtests.settings import SettingError, Target

ENVIRONMENT = {
    "PROFILE": "cpu",
    "LITELLM_CONFIG": "config/litellm.yaml",
    "LITELLM_MASTER_KEY": "sk-test",
    "ROUTER_URL": "http://127.0.0.1:4000/",
    "CODER_URL": "http://127.0.0.1:8001/, http://127.0.0.1:8003",
    "GENERAL_URL": "http://127.0.0.1:8002",
}


def test_every_engine_of_an_alias_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert Target.from_environment().servers() == {
        "router": "http://127.0.0.1:4000",
        "coder": "http://127.0.0.1:8001",
        "coder-2": "http://127.0.0.1:8003",
        "general": "http://127.0.0.1:8002",
    }


def test_a_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GENERAL_URL")
    with pytest.raises(SettingError, match="GENERAL_URL"):
        Target.from_environment()
