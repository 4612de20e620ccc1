"""config/litellm.yaml: every key has its effect, changes nothing, or stops the start with one line."""

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from router.errors import BadSettings
from router.litellm.config import Config, read_config, verdict
from router.litellm.proxy import ENVIRONMENT
from router.models import models_list, published_names, read_models
from router.settings import ROOT, read_settings

Json = dict[str, Any]
ENGINE = {"model": "hosted_vllm/coder", "api_base": "http://127.0.0.1:8001"}
REMOTE = {"model": "openai/gpt-x", "api_key": "k"}
UNSET = ENGINE | {"api_base": "os.environ/NO_SUCH"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in dotenv_values(ROOT / ".env.example").items():
        monkeypatch.setenv(name, value or "")
    monkeypatch.setenv("LITELLM_MASTER_KEY", "q7Zr3kX9vT2mB6nL8wY4dF1hJ5cG0sPa")


def config(tmp_path: Path, content: Json) -> Config:
    path = tmp_path / "litellm.yaml"
    path.write_text(
        yaml.safe_dump({"model_list": [{"model_name": "coder", "litellm_params": ENGINE}]} | content)
    )
    return read_config(path)


def refusal(tmp_path: Path, content: Json) -> str:
    with pytest.raises(BadSettings) as caught:
        read_models(read_settings(), config(tmp_path, content), [])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def schema() -> dict[str, set[str]]:
    """The keys of LiteLLM's own configuration, by section, as its classes have them."""
    os.environ.update(ENVIRONMENT)
    import litellm
    from litellm.proxy._types import ConfigGeneralSettings, ConfigYAML
    from litellm.router import Router
    from litellm.types.router import Deployment, LiteLLM_Params, ModelInfo, UpdateRouterConfig

    plain = (bool, int, float, str, list, dict, set, type(None))
    # litellm_settings sets attributes of the module.
    settings = {
        name
        for name, value in vars(litellm).items()
        if isinstance(value, plain) and not name.startswith("_") and name == name.lower()
    }
    return {
        "": set(ConfigYAML.model_fields),
        "general_settings": set(ConfigGeneralSettings.model_fields),
        "router_settings": {*inspect.signature(Router).parameters, *UpdateRouterConfig.model_fields},
        "litellm_settings": settings,
        "model_list": set(Deployment.model_fields) & {"model_name", "litellm_params", "model_info"},
        "engine": set(LiteLLM_Params.model_fields),
        "remote": set(LiteLLM_Params.model_fields),
        "model_info": set(ModelInfo.model_fields),
    }


def test_every_key_of_litellm_is_honoured_harmless_or_refused() -> None:
    missing = {
        f"{section}.{key}"
        for section, keys in schema().items()
        for key in keys
        if verdict(section, key) is None
    }
    assert not missing, f"router/litellm/keys.yaml says nothing about {sorted(missing)}"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"general_settings": {"database_url": "postgres://"}}, "general_settings.database_url is not"),
        ({"general_settings": {"master_key": "sk-9"}}, "general_settings.master_key"),
        ({"general_settings": {"custom_auth": "mine.check"}}, "KEYS_FILE"),
        ({"general_settings": {"no_such_key": 1}}, "general_settings.no_such_key"),
        ({"guardrails": []}, "guardrails"),
        ({"environment_variables": {"A": "os.environ/NO_SUCH"}}, "NO_SUCH is missing"),
        ({"modell_list": []}, "did you mean model_list?"),
        ({"router_settings": {"routing_strategy": "latency-based-routing"}}, "by its weight, rpm or tpm"),
        ({"router_settings": {"model_group_alias": {"gpt-4": "nobody"}}}, "model_group_alias.gpt-4"),
        ({"router_settings": ["x"]}, "router_settings must be a mapping"),
        ({"router_settings": {"fallbacks": [{"coder": ["nobody"]}]}}, "names nobody"),
        ({"router_settings": {"fallbacks": {"coder": ["coder"]}}}, "must be a list"),
        ({"router_settings": {"fallbacks": [{"coder": "coder"}]}}, "needs a list"),
        ({"router_settings": {"context_window_fallbacks": [{"coder": ["nobody"]}]}}, "names nobody"),
        ({"router_settings": {"default_max_parallel_requests": 0}}, "at least 1"),
        ({"model_list": [{"model_name": "x", "litellm_params": {"model": "gpt-x"}}]}, "openai/gpt-x"),
        ({"model_list": [{"model_name": "x", "litellm_params": REMOTE | {"api_kye": "k"}}]}, "mean api_key?"),
        ({"model_list": [{"model_name": "x", "litellm_params": REMOTE | {"max_budget": 1}}]}, "max_budget"),
        ({"model_list": [{"model_name": "x", "litellm_params": REMOTE | {"rpm": "6"}}]}, "x: rpm"),
        ({"model_list": [{"model_name": "x", "litellm_params": each} for each in (ENGINE, REMOTE)]}, "two"),
        ({"litellm_settings": {"fallbacks": []}}, "router_settings.fallbacks"),
        ({"litellm_settings": {"cache": True}}, "litellm_settings.cache"),
        ({"model_list": []}, "model_list"),
        ({"model_list": [{"litellm_params": ENGINE}]}, "entry 1 of model_list needs a model_name"),
        ({"model_list": [{"model_name": "x"}]}, "litellm_params"),
        ({"model_list": [{"model_name": "x", "litellm_params": {"model": "hosted_vllm/x"}}]}, "x.yaml"),
        ({"model_list": [{"model_name": "x", "litellm_params": {"model": "hosted_vllm/../x"}}]}, "x"),
        ({"model_list": [{"model_name": "x", "litellm_params": {"model": "hosted_vllm/coder"}}]}, "api_base"),
        ({"model_list": [{"model_name": "x", "litellm_params": ENGINE | {"api_key": "k"}}]}, "x: api_key"),
        ({"model_list": [{"model_name": "x", "litellm_params": UNSET}]}, "NO_SUCH"),
        ({"model_list": [{"model_name": "x", "litellm_params": ENGINE | {"api_base": "host:1"}}]}, "origin"),
        ({"model_list": [{"model_name": "x", "litellm_params": ENGINE, "modelinfo": {}}]}, "modelinfo"),
        (
            {"model_list": [{"model_name": name, "litellm_params": ENGINE} for name in ("a", "b")]},
            "a and b have the same engine",
        ),
        (
            {
                "model_list": [
                    {"model_name": "a", "litellm_params": ENGINE | {"model": f"hosted_vllm/{name}"}}
                    for name in ("coder", "general")
                ]
            },
            "share one file",
        ),
    ],
)  # fmt: skip
def test_what_is_not_honoured_stops_the_start(tmp_path: Path, content: Json, named: str) -> None:
    assert named in refusal(tmp_path, content)


@pytest.mark.parametrize("text", ["", "[", "- a\n", "model_list\n"])
def test_what_is_no_configuration_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "litellm.yaml").write_text(text)
    with pytest.raises(BadSettings, match=r"litellm\.yaml"):
        read_config(tmp_path / "litellm.yaml")
    with pytest.raises(BadSettings, match="LITELLM_CONFIG"):
        read_config(tmp_path / "nothing.yaml")


def test_several_entries_of_a_name_are_several_engines(tmp_path: Path) -> None:
    entries = [
        {"model_name": "fast one", "litellm_params": ENGINE | {"api_base": f"http://127.0.0.1:{port}/v1"}}
        for port in (8001, 8003)
    ]
    models = read_models(read_settings(), config(tmp_path, {"model_list": entries}), [])
    replicas = models["fast one"].replicas
    assert [replica.url for replica in replicas] == ["http://127.0.0.1:8001", "http://127.0.0.1:8003"]
    # The engine knows the model by its own name, whatever clients call it.
    assert {replica.served for replica in replicas} == {"coder"}


def test_a_name_may_say_how_much_the_model_thinks(tmp_path: Path) -> None:
    quick = {"model": "coder", "reasoning_effort": "none"}
    settings = {"model_group_alias": {"gpt-4": "coder", "quick": quick}}
    read = config(tmp_path, {"router_settings": settings})
    assert read.aliases["quick"] == "coder" and read.efforts == {"quick": "none"}
    quick["reasoning_effort"] = "great"
    with pytest.raises(BadSettings, match=r"quick\.reasoning_effort must be one of none, minimal, .*great"):
        config(tmp_path, {"router_settings": settings})


def test_a_hidden_name_answers_and_is_not_listed(tmp_path: Path) -> None:
    settings = {"model_group_alias": {"gpt-4": "coder", "secret": {"model": "coder", "hidden": True}}}
    read = config(tmp_path, {"router_settings": settings})
    models = read_models(read_settings(), read, [])
    names = published_names(models, read.aliases)
    assert names["secret"] == "coder"
    listed = [model["id"] for model in models_list(names, models, read.hidden)["data"]]
    assert "gpt-4" in listed and "secret" not in listed


def test_litellm_is_not_imported_before_the_settings_are_checked() -> None:
    """It takes seconds, and reads its environment, which `load_app` sets."""
    code = "import sys, router.app; sys.exit('litellm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_litellm_does_not_read_the_checkouts_settings() -> None:
    """It looks for .env in every folder above its own, and so finds the checkout's."""
    code = "import dotenv; dotenv.load_dotenv = lambda **_: print('reads .env'); import litellm"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
