"""compose.yaml as Compose itself reads it; no Docker engine is needed."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from services.stack.environments import BY_NAME, ROOT
from ui import settings
from ui.settings import AppSettings

COMPOSE = Path(sys.executable).with_name("docker-compose")


def _config(folder: Path, profile: str, env: str = "LITELLM_MASTER_KEY=x\n") -> Any:
    """What Compose makes of the file, in a folder with a `.env` of the test's own."""
    shutil.copy(ROOT / "compose.yaml", folder)
    shutil.copy(ROOT / ".env.example", folder)
    shutil.copytree(ROOT / "config", folder / "config", dirs_exist_ok=True)
    (folder / ".env").write_text(env)
    profiles = [argument for name in profile.split() for argument in ("--profile", name)]
    command = [str(COMPOSE), *profiles, "config", "--format", "json"]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)["services"]


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_a_profile_is_the_whole_service_and_publishes_only_router_and_ui(
    tmp_path: Path, profile: str
) -> None:
    services = _config(tmp_path, profile)
    services.pop("gpu-exporter", None)  # has a test of its own
    assert set(services) == {f"coder-{profile}", f"general-{profile}", f"router-{profile}", "ui"}
    published = {
        name: [(port["host_ip"], port["published"]) for port in service.get("ports", [])]
        for name, service in services.items()
    }
    assert published[f"router-{profile}"] == [("127.0.0.1", "4000")]
    assert published["ui"] == [("127.0.0.1", "8501")]
    assert published[f"coder-{profile}"] == published[f"general-{profile}"] == []
    for service in services.values():
        assert service["read_only"] and service["init"] and service["healthcheck"]
        assert service["cap_drop"] == ["ALL"] and service["restart"] == "unless-stopped"


def test_the_second_engine_waits_for_the_first_and_the_router_for_neither(tmp_path: Path) -> None:
    services = _config(tmp_path, "cpu")
    assert services["general-cpu"]["depends_on"]["coder-cpu"]["condition"] == "service_healthy"
    assert "depends_on" not in services["router-cpu"]


def test_env_is_the_same_file_as_for_up(tmp_path: Path) -> None:
    services = _config(
        tmp_path, "gpu", "LITELLM_MASTER_KEY=x\nBIND_ADDRESS=0.0.0.0\nROUTER_PORT=4100\nQUEUE_MAX=7\n"
    )
    router = services["router-gpu"]
    assert [(p["host_ip"], p["published"]) for p in router["ports"]] == [("0.0.0.0", "4100")]
    assert router["environment"]["QUEUE_MAX"] == "7"
    assert router["environment"]["MAX_WAIT"]  # a default, from .env.example
    assert router["environment"]["PROFILE"] == "blackwell-96gb"


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_only_the_router_gets_the_keys_of_providers_and_the_others_what_they_read(
    tmp_path: Path, profile: str
) -> None:
    own = {"LITELLM_MASTER_KEY": "the-key-of-this-service", "BIG_KEY": "the-key-of-a-provider"}
    changed = {"VLLM_MAX_STOP_STRINGS": "30", "CPU_PRECISION": "float32", "CONTEXT_RATIO": "0.5"}
    lines = [f"{name}={value}\n" for name, value in (own | changed).items()]
    services = _config(tmp_path, f"{profile} monitoring", "".join(lines))
    router = services.pop(f"router-{profile}")
    assert (own | changed).items() <= router["environment"].items()
    assert "front" in router["networks"], "a network on which it reaches providers"
    for name, service in services.items():
        assert own["BIG_KEY"] not in json.dumps(service), name
    assert services["ui"]["environment"].keys() == {name.upper() for name in AppSettings.model_fields}
    assert services["ui"]["environment"]["CONTEXT_RATIO"] == "0.5"
    for name in (f"coder-{profile}", f"general-{profile}"):
        assert own["LITELLM_MASTER_KEY"] not in json.dumps(services[name])
        assert services[name]["environment"]["VLLM_MAX_STOP_STRINGS"] == "30"
        assert services[name]["environment"].get("CPU_PRECISION") == ("float32" if profile == "cpu" else None)


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_conversations_that_people_sync_outlive_the_container(
    tmp_path: Path, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the app writes is on a volume, which begins as a copy of a folder of the image that is its own."""
    ui = _config(tmp_path, profile, "LITELLM_MASTER_KEY=the-key-of-this-service-which-is-long\n")["ui"]
    for name, value in ui["environment"].items():
        monkeypatch.setenv(name, value)
    written = settings.load().vaults
    (mounted,) = (each for each in ui["volumes"] if each["target"] == str(written))
    assert mounted["type"] == "volume" and not mounted.get("read_only")
    made = f"RUN install -d -m 700 -o 10001 -g 10001 {written.relative_to('/app')}\n"
    assert made in (ROOT / "ui" / "Dockerfile").read_text()


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_defaults_are_those_of_the_example(tmp_path: Path, profile: str) -> None:
    defaults = dotenv_values(ROOT / ".env.example")
    for service in _config(tmp_path, profile).values():
        environment = service.get("environment", {})
        for name in ("VLLM_MAX_STOP_STRINGS", "CPU_PRECISION", "CONTEXT_RATIO"):
            assert environment.get(name, defaults[name]) == defaults[name]


def test_gpu_engines_are_the_release_that_is_locked(tmp_path: Path) -> None:
    image = _config(tmp_path, "gpu")["coder-gpu"]["image"]
    release = image.rpartition(":v")[2]
    assert f"\nvllm=={release} " in BY_NAME["engine-cuda"].lock.read_text()


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_monitoring_adds_prometheus_grafana_and_what_watches_the_gpu(tmp_path: Path, profile: str) -> None:
    services = _config(tmp_path, f"{profile} monitoring")
    added = {"prometheus", "grafana"} | ({"gpu-exporter"} if profile == "gpu" else set())
    assert set(services) == {f"coder-{profile}", f"general-{profile}", f"router-{profile}", "ui"} | added
    for name in added:
        service = services[name]
        assert service["read_only"] and service["init"] and service["cap_drop"] == ["ALL"]
        assert re.search(r":v?\d+\.\d+\.\d+", service["image"]), "pinned by exact version"
    # Grafana is for this machine whatever BIND_ADDRESS says, and Prometheus for Grafana.
    assert [(p["host_ip"], p["published"]) for p in services["grafana"]["ports"]] == [("127.0.0.1", "3000")]
    assert "ports" not in services["prometheus"]
    assert set(services["prometheus"]["networks"]) == {"engines", "monitoring"}


def test_prometheus_asks_the_services_under_names_that_compose_gives_them(tmp_path: Path) -> None:
    services = _config(tmp_path, "gpu monitoring")
    names = set(services) | {
        alias
        for service in services.values()
        for network in (service["networks"].get("engines") or {},)
        for alias in network.get("aliases", [])
    }
    scrape = yaml.safe_load((ROOT / "config/prometheus/compose.yml").read_text())["scrape_configs"]
    targets = [t for job in scrape for group in job["static_configs"] for t in group["targets"]]
    assert len(targets) == 4
    assert {target.partition(":")[0] for target in targets} <= names


def test_without_a_key_it_stops_and_names_it(tmp_path: Path) -> None:
    """Else Grafana would take its own default password."""
    shutil.copy(ROOT / "compose.yaml", tmp_path)
    shutil.copy(ROOT / ".env.example", tmp_path)
    (tmp_path / ".env").write_text("")
    command = [str(COMPOSE), "--profile", "monitoring", "config", "-q"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode != 0 and "LITELLM_MASTER_KEY" in answer.stderr and "./run setup" in answer.stderr
