from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from router.errors import ApiError, BadSettings
from router.exchange import Exchange
from router.fim import Family
from router.litellm.config import read_config
from router.models import Mode, Model, models_list, published_names, read_models
from router.paths import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RERANK
from router.settings import ROOT, read_settings
from router.steps.resolve_model import resolve_model

QWEN = Family("qwen", ("qwen3-coder",), "<P>{prefix}<S>{suffix}<M>", ())
PREFIX_ONLY = Family("prefix-only", ("smollm",), "{prefix}", ())
MODELS = {
    "coder": Model(
        "coder", ("http://a", "http://c"), "Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8", 8, 32768, QWEN
    ),
    "general": Model("general", ("http://b",), "models/smollm2", 8, 8192, PREFIX_ONLY),
}


def test_names_that_clients_may_use() -> None:
    names = published_names(MODELS, {"gpt-4o": "general"})
    assert names == {
        "coder": "coder",
        "general": "general",
        "qwen3-coder-30b-a3b-instruct-fp8": "coder",
        "smollm2": "general",
        "gpt-4o": "general",
    }
    assert {m["id"]: m["max_model_len"] for m in models_list(names, MODELS)["data"]}["gpt-4o"] == 8192


def test_the_list_says_which_models_use_a_suffix() -> None:
    listed = models_list({"coder": "coder", "general": "general", "gpt-4o": "general"}, MODELS)["data"]
    assert {model["id"]: model["fill_in_the_middle"] for model in listed} == {
        "coder": True,
        "general": False,
        "gpt-4o": False,
    }
    unknown = {"coder": Model("coder", (), "some/model", 8, 8192)}
    assert models_list({"coder": "coder"}, unknown)["data"][0]["fill_in_the_middle"] is False


def test_the_list_has_real_names_for_people() -> None:
    names = {"coder": "coder", "gpt-4o": "general"}
    assert [model["display_name"] for model in models_list(names, MODELS)["data"]] == [
        "Qwen3-Coder-30B-A3B-Instruct-FP8",
        "smollm2",
    ]


def test_the_list_says_which_models_take_pictures() -> None:
    models = {"eyes": Model("eyes", (), "some/vl", 8, 8192, sees=True), "coder": MODELS["coder"]}
    listed = models_list({"eyes": "eyes", "coder": "coder"}, models)["data"]
    assert [model["supports_vision"] for model in listed] == [True, False]


def with_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str | None = None, **top: Any
) -> dict[str, Model]:
    """The models of the CPU profile with its optional one for embeddings, whose entry says this mode."""
    for name, value in dotenv_values(ROOT / ".env.example").items():
        monkeypatch.setenv(name, value or "")
    monkeypatch.setenv("LITELLM_MASTER_KEY", "q7Zr3kX9vT2mB6nL8wY4dF1hJ5cG0sPa")
    content = yaml.safe_load((ROOT / "config" / "litellm.yaml").read_text())
    entry: dict[str, Any] = {
        "model_name": "embedding",
        "litellm_params": {"model": "hosted_vllm/embedding", "api_base": "http://127.0.0.1:8003"},
    }
    content["model_list"].append(entry | ({"model_info": {"mode": mode}} if mode else {}))
    content["router_settings"] |= top
    (tmp_path / "litellm.yaml").write_text(yaml.safe_dump(content))
    return read_models(read_settings(), read_config(tmp_path / "litellm.yaml"), [])


def test_what_a_model_is_for_follows_from_its_runner_and_its_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = with_entry(tmp_path, monkeypatch)
    assert {alias: model.mode for alias, model in models.items()} == {
        "coder": "chat",
        "general": "chat",
        "embedding": "embedding",
    }
    assert (models["embedding"].vector_size, models["coder"].vector_size) == (384, None)
    assert with_entry(tmp_path, monkeypatch, "rerank")["embedding"].mode == "rerank"
    for wrong in ("chat", "completion", "image_generation"):
        with pytest.raises(BadSettings, match="must be embedding or rerank"):
            with_entry(tmp_path, monkeypatch, wrong)


def test_only_models_that_generate_answer_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for fallbacks in ([{"coder": ["embedding"]}], [{"embedding": ["general"]}]):
        with pytest.raises(BadSettings, match="cannot answer for"):
            with_entry(tmp_path, monkeypatch, fallbacks=fallbacks)


@pytest.mark.parametrize(
    ("mode", "paths"),
    [
        ("chat", {CHAT, COMPLETIONS, MESSAGES}),
        ("completion", {CHAT, COMPLETIONS, MESSAGES}),
        ("embedding", {EMBEDDINGS, RERANK}),
        ("rerank", {RERANK}),
    ],
)
def test_a_model_serves_the_apis_of_its_mode(mode: Mode, paths: set[str]) -> None:
    model = Model("m", (), "some/model", 8, 8192, mode=mode)
    assert {path for path in (CHAT, COMPLETIONS, MESSAGES, EMBEDDINGS, RERANK) if model.serves(path)} == paths


def test_without_a_name_the_first_model_that_serves_the_path_is_meant() -> None:
    models = {
        "coder": Model("coder", (), "a", 8, 8192),
        "embedding": Model("embedding", (), "b", 8, 8192, mode="embedding"),
    }
    names = {alias: alias for alias in models}
    for path, alias in ((CHAT, "coder"), (EMBEDDINGS, "embedding"), (RERANK, "embedding")):
        exchange = Exchange(path)
        resolve_model(exchange, names=names, models=models)
        assert exchange.alias == exchange.body["model"] == alias
    with pytest.raises(ApiError, match="use 'embedding'"):
        resolve_model(Exchange(EMBEDDINGS, body={"model": "coder"}), names=names, models=models)
