import shutil
import stat
from pathlib import Path

import pytest

from services.stack import gpus, settings
from services.stack.failure import Failure
from tests.support import ROOT

SAID: list[str] = []


def _home(tmp_path: Path, text: str) -> Path:
    (tmp_path / ".env").write_text(text)
    return tmp_path


def test_defaults_come_from_the_example(tmp_path: Path) -> None:
    loaded = settings.load(tmp_path)
    assert loaded.ports == {"coder": 8001, "general": 8002, "router": 4000, "ui": 8501}
    assert loaded.engine == "cpu"


def test_own_settings_win(tmp_path: Path) -> None:
    loaded = settings.load(_home(tmp_path, "ROUTER_PORT=4100\nCODER_URL=http://127.0.0.1:9001\n"))
    assert loaded.ports["router"] == 4100
    assert loaded.url("coder") == "http://127.0.0.1:9001"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("ROUTER_PROT=1", "ROUTER_PORT"),
        ("PROFILE=h100", "PROFILE"),
        ("ROUTER_PORT=none", "ROUTER_PORT"),
        ("ROUTER_PORT=70000", "ROUTER_PORT"),
        ("UI_PORT=4000", "4000"),
        ("LOAD_FORMAT=random", "LOAD_FORMAT"),
        ("LOG_DAYS=0", "LOG_DAYS"),
        ("LOG_TOTAL_GB=much", "LOG_TOTAL_GB"),
        ("ENGINE_GROWTH=1", "ENGINE_GROWTH"),
        ("CODER_URL=http://localhost:8001", "127.0.0.1:PORT"),
        ("CODER_URL=http://127.0.0.1:8001,http://127.0.0.1:8001", "each once"),
        ("CODER_URL=http://127.0.0.1:8001,http://127.0.0.1:8002", "coder-2"),
        ("CODER_URL=,", "CODER_URL"),
        ("MODEL_ALIASES=gpt=general", "model_group_alias"),
        ("LITELLM_CONFIG=", "LITELLM_CONFIG"),
        ("LITELLM_CONFIG=/nonexistent.yaml", "LITELLM_CONFIG"),
        ("CODER_URL=ftp://192.0.2.1:8001", "CODER_URL"),
        ("CODER_URL=http://127.0.0.1", "CODER_URL"),
        ("CODER_URL=http://[", "CODER_URL"),
    ],
)
def test_a_bad_setting_is_named_in_one_line(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(Failure) as failure:
        settings.load(_home(tmp_path, line + "\n"))
    assert told in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_key_is_generated_once_and_kept_to_its_owner(tmp_path: Path) -> None:
    settings.ensure_key(tmp_path, SAID.append)
    path = tmp_path / ".env"
    key = settings.load(tmp_path).variables[settings.KEY]
    assert len(key) >= 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    settings.ensure_key(tmp_path, SAID.append)
    assert settings.load(tmp_path).variables[settings.KEY] == key


@pytest.mark.parametrize("text", ["ROUTER_PORT=4100\n", "ROUTER_PORT=4100\nLITELLM_MASTER_KEY=\n"])
def test_a_key_is_added_to_settings_without_one(tmp_path: Path, text: str) -> None:
    settings.ensure_key(_home(tmp_path, text), SAID.append)
    loaded = settings.load(tmp_path)
    assert loaded.variables[settings.KEY].startswith("sk-")
    assert loaded.ports["router"] == 4100
    assert (tmp_path / ".env").read_text().count("LITELLM_MASTER_KEY") == 1


def test_two_keys_are_never_the_same(tmp_path: Path) -> None:
    keys = set()
    for name in ("a", "b"):
        settings.ensure_key(tmp_path / name, SAID.append)
        keys.add(settings.load(tmp_path / name).variables[settings.KEY])
    assert len(keys) == 2


def test_another_engine_takes_its_own_profile(tmp_path: Path) -> None:
    loaded = settings.load(tmp_path)
    assert loaded.with_engine("cuda").profile.name == "blackwell-96gb"
    assert loaded.with_engine("cpu") is loaded
    assert loaded.with_engine(None) is loaded


def test_several_urls_are_several_engines_here_and_elsewhere(tmp_path: Path) -> None:
    urls = "http://192.0.2.1:8001, http://127.0.0.1:9001,http://127.0.0.1:9002"
    loaded = settings.load(_home(tmp_path, f"CODER_URL={urls}\n"))
    assert [engine.name for engine in loaded.engines] == ["coder", "coder-2", "coder-3", "general"]
    assert loaded.services == ("coder-2", "coder-3", "general", "router", "ui")
    assert loaded.ports["coder-3"] == 9002 and "coder" not in loaded.ports
    assert loaded.url("coder-2") == "http://127.0.0.1:9001"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "http://127.0.0.1:4000"),
        ("BIND_ADDRESS=0.0.0.0\nROUTER_PORT=4100\n", "http://127.0.0.1:4100"),
        ("BIND_ADDRESS=::\n", "http://[::1]:4000"),
        ("BIND_ADDRESS=192.0.2.1\n", "http://192.0.2.1:4000"),
        ("ROUTER_URL=https://ai.example.com/\n", "https://ai.example.com"),
    ],
)
def test_the_routers_address_follows_from_the_settings(tmp_path: Path, text: str, url: str) -> None:
    assert settings.load(_home(tmp_path, text)).variables["ROUTER_URL"] == url


def test_engines_of_one_model_get_gpus_of_their_own(tmp_path: Path) -> None:
    one = settings.load(tmp_path).with_profile("ada-24gb")
    assert [gpus.of_engine(one, engine) for engine in one.engines] == [[], []]
    urls = "http://127.0.0.1:9001,http://127.0.0.1:9002"
    two = settings.load(_home(tmp_path, f"PROFILE=ada-24gb\nCODER_URL={urls}\n"))
    assert [gpus.of_engine(two, engine) for engine in two.engines] == [[0], [1], [0]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"ROUTER_PORT: 4100\n", "line 1"),
        (b"# mine\n\nQUEUE_MAX\n", "line 3"),
        (b"QUEUE_MAX=5\nNAME='open\n", "line 2"),
        ("KEYS_FILE=gr\u00fc\u00df\n".encode("latin-1"), "UTF-8"),
        ("ROUTER_PORT=4100\n".encode("utf-16"), "UTF-8"),
        (b"PROFILE=\n", "PROFILE is empty"),
        (b"PROFILE=.\n", "PROFILE"),
        (b"ROUTER_PORT=\n", "ROUTER_PORT"),
        ("ROUTER_PORT=\u0664\u0660\u0660\u0660\n".encode(), "ROUTER_PORT"),
        (b"GRAFANA_PORT=x\n", "GRAFANA_PORT"),
        (b"BIND_ADDRESS=[::1]\n", "BIND_ADDRESS"),
        (b"BIND_ADDRESS=localhost\n", "BIND_ADDRESS"),
        (b"ROUTER_URL=127.0.0.1:4000\n", "ROUTER_URL"),
        (b"ROUTER_URL=http://a:b\n", "ROUTER_URL"),
    ],
)
def test_a_damaged_file_is_one_line_that_says_where(tmp_path: Path, text: bytes, told: str) -> None:
    (tmp_path / ".env").write_bytes(text)
    with pytest.raises(Failure) as failure:
        settings.load(tmp_path)
    assert told in str(failure.value) and "\n" not in str(failure.value)


def test_a_line_that_is_not_a_setting_is_told_without_what_may_be_a_key(tmp_path: Path) -> None:
    with pytest.raises(Failure) as failure:
        settings.load(_home(tmp_path, "LITELLM_MASTER_KEY: sk-9x7secret\n"))
    assert "LITELLM_MASTER_KEY" in str(failure.value) and "9x7" not in str(failure.value)


def test_settings_that_an_editor_of_another_system_wrote_are_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfROUTER_PORT=4100\r\nQUEUE_MAX=7\r\n")
    loaded = settings.load(tmp_path)
    assert loaded.ports["router"] == 4100 and loaded.variables["QUEUE_MAX"] == "7"


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(Failure, match=r"\.env cannot be read"):
        settings.load(tmp_path)


def test_a_relative_home_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUOSERVE_HOME", "data")
    with pytest.raises(Failure, match="DUOSERVE_HOME=data is not an absolute path"):
        settings.home()


def test_a_copied_profile_is_for_the_machine_that_it_says(tmp_path: Path) -> None:
    for name, engine in (("cpu", "cpu"), ("ada-24gb", "cuda")):
        copy = tmp_path / f"mine-{name}"
        shutil.copytree(settings.PROFILES / name, copy)
        assert settings.load(_home(tmp_path, f"PROFILE={copy}\n")).engine == engine
    (copy / "engine.env").write_text("VLLM_TARGET_DEVICE=tpu\n")
    with pytest.raises(Failure, match="VLLM_TARGET_DEVICE=tpu"):
        settings.load(tmp_path)
    (copy / "general.yaml").unlink()
    with pytest.raises(Failure, match=r"lacks general\.yaml"):
        settings.load(tmp_path)


def test_remote_models_are_no_engines(tmp_path: Path) -> None:
    config = tmp_path / "litellm.yaml"
    entry = "- {model_name: big, litellm_params: {model: anthropic/claude-x, api_key: os.environ/BIG_KEY}}"
    text = (ROOT / "config" / "litellm.yaml").read_text()
    config.write_text(text.replace("model_list:\n", f"model_list:\n  {entry}\n"))
    (tmp_path / ".env").write_text(f"LITELLM_CONFIG={config}\nBIG_KEY=secret\n")
    loaded = settings.load(tmp_path)
    assert loaded.remote == {"big": "anthropic"} and loaded.aliases == ("coder", "general")
    # Only the router gets the provider's key.
    assert loaded.variables["BIG_KEY"] == "secret" and "BIG_KEY" not in loaded.common
