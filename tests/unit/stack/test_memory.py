"""The plan against vLLM's own rules, and against published figures of vLLM (docs/gpu-sizing.md)."""

import shutil
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from services.stack import memory, models, settings
from services.stack.commands import plan
from services.stack.environments import ROOT
from services.stack.failure import Failure
from services.stack.memory import GIB, EngineMemory, Plan
from services.stack.models import Model

REVISIONS = {name: entry["revision"] for name, entry in yaml.safe_load(models.KNOWN.read_text()).items()}
MODELS = {name: models.find(name, revision) for name, revision in REVISIONS.items()}


def _engine(name: str, values: dict[str, Any]) -> EngineMemory:
    return _planned(name, **values)


def _planned(name: str, vram: float = 96, alias: str = "coder", **values: Any) -> EngineMemory:
    values = {"max-num-seqs": 16, "max-model-len": 32768, "kv-cache-memory-bytes": "8G"} | values
    return memory.engine_memory(alias, values, MODELS[name], "cuda", int(vram * GIB))


@pytest.mark.parametrize(
    ("model", "reported"),
    [
        ("Qwen/Qwen3-30B-A3B-Instruct-2507-FP8", 29.0972),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8", 29.0435),
        ("Qwen/Qwen2.5-Coder-32B-Instruct-AWQ", 18.14),
        ("Qwen/Qwen2.5-14B-Instruct", 27.57),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", 5.2032),
    ],
)
def test_weights_are_what_vllm_reports_to_load(model: str, reported: float) -> None:
    assert _planned(model).weights / GIB == pytest.approx(reported, rel=0.01)


@pytest.mark.parametrize(
    ("model", "dtype", "gib", "tokens"),
    [
        ("Qwen/Qwen3-30B-A3B-Instruct-2507-FP8", "fp8", 4.04, 88_176),
        ("Qwen/Qwen2.5-Coder-32B-Instruct-AWQ", "auto", 1.0, 4_096),
    ],
)
def test_the_cache_holds_the_tokens_that_vllm_reports(
    model: str, dtype: str, gib: float, tokens: int
) -> None:
    values: dict[str, Any] = {"kv-cache-memory-bytes": int(gib * GIB), "kv-cache-dtype": dtype}
    engine = _planned(model, **values)
    assert engine.tokens == pytest.approx(tokens, rel=0.005)  # the GiB are rounded to two digits


def test_activations_are_near_what_vllm_measured() -> None:
    """1.42 GiB for 4,096 batched tokens and 256 sequences of a 7B model."""
    values: dict[str, Any] = {"max-num-seqs": 256, "max-model-len": 4096, "max-num-batched-tokens": 4096}
    engine = _planned("Qwen/Qwen2.5-7B-Instruct-AWQ", 8, **values)
    assert engine.activations / GIB == pytest.approx(1.42, rel=0.05)


def _pair(vram: float, **values: Any) -> Plan:
    name = "Qwen/Qwen2.5-7B-Instruct-AWQ"
    return Plan(
        "cuda", int(vram * GIB), [_planned(name, vram, alias, **values) for alias in ("coder", "general")]
    )


def test_the_second_engine_does_not_start_at_vllms_default_utilization() -> None:
    """vLLM wants 0.92 of all memory to be free, however little the engine then takes."""
    (first, second) = _pair(96, **{"max-model-len": 8192}).problems()
    assert "gpu-memory-utilization 0.92" in first and "set it to 0.82 or less" in second
    assert _pair(96, **{"max-model-len": 8192, "gpu-memory-utilization": 0.82}).problems() == []


def test_too_little_memory_and_too_small_a_cache_are_named() -> None:
    (sum_,) = _pair(24, **{"gpu-memory-utilization": 0.46}).problems()
    assert "the models need 31.1 GiB, 7.1 GiB more" in sum_
    small = _pair(24, **{"gpu-memory-utilization": 0.46, "kv-cache-memory-bytes": "1G"}).problems()
    assert [text for text in small if "less than one context of 32,768" in text] == small


@hypothesis.settings(deadline=None)
@given(vram=st.floats(22, 200), slots=st.integers(1, 64))
def test_a_suggested_split_that_holds_a_context_fits(vram: float, slots: int) -> None:
    values: dict[str, Any] = {"max-num-seqs": slots, "max-model-len": 16384}
    split = _pair(vram, **values).suggestion()["coder"]
    assume(split.kv_cache >= 16384 * 56 * 1024)
    better = {"kv-cache-memory-bytes": split.kv_cache, "gpu-memory-utilization": split.utilization}
    assert _pair(vram, **values, **better).problems() == []


@pytest.mark.parametrize(
    ("text", "size"), [("12G", 12 * GIB), ("12g", 12 * 10**9), ("768M", 768 * 2**20), (5, 5), ("7", 7)]
)
def test_sizes_are_read_as_vllm_reads_them(text: str | int, size: int) -> None:
    assert memory.parse_size(text) == size


@pytest.mark.parametrize(
    "more",
    [{"layer_types": ["linear_attention"]}, {"layer_types": ["chunked_attention"]}, {"kv_lora_rank": 512}],
)
def test_what_is_not_known_is_said_and_not_guessed(more: dict[str, Any]) -> None:
    known = MODELS["Qwen/Qwen2.5-14B-Instruct"]
    other = Model(known.name, {**known.config, **more}, known.parameters)
    with pytest.raises(ValueError, match="not known here"):
        memory.engine_memory("coder", {"max-num-seqs": 1, "max-model-len": 1}, other, "cuda", GIB)


CACHES = yaml.safe_load(Path(__file__).with_name("kv_cache.yaml").read_text())


@pytest.mark.parametrize("name", CACHES)
def test_the_cache_of_each_architecture_is_the_one_that_vllm_logged(name: str) -> None:
    case = CACHES[name]
    model = Model(name, case["config"], {"BF16": 0})
    engine = memory.engine_memory("coder", case["settings"], model, "cpu", GIB)
    assert engine.tokens == pytest.approx(case["logged"]["tokens"], rel=0.02)
    assert engine.contexts == pytest.approx(case["logged"]["contexts"], rel=0.02)


@pytest.mark.parametrize(
    ("model", "values", "block"),
    [
        # vllm#38182: two GPUs, MTP with three tokens, a cache in 16 bits
        (
            "Qwen/Qwen3.6-35B-A3B-FP8",
            {
                "tensor-parallel-size": 2,
                "speculative-config": {"method": "mtp", "num_speculative_tokens": 3},
            },
            1072,
        ),
        # LMCache#4247: MTP with two tokens, a cache in 8 bits
        (
            "Qwen/Qwen3.8-27B-FP8",
            {"kv-cache-dtype": "fp8", "speculative-config": {"method": "mtp", "num_speculative_tokens": 2}},
            1600,
        ),
    ],
)
def test_blocks_of_hybrid_models_are_as_large_as_vllm_reported(
    model: str, values: dict[str, Any], block: int
) -> None:
    # A context of one block more takes one block more of full attention.
    short, long = (
        _engine(model, {**values, "max-model-len": context}).cache.blocks for context in (block, block + 1)
    )
    assert long == short + 1


def test_mtp_and_the_image_encoder_are_weights_where_they_are_used() -> None:
    """30.9 GB is the whole file of Qwen3.8-27B-FP8; 14.28 GiB are a half of it (vLLM recipes #810)."""
    name, mtp = "Qwen/Qwen3.8-27B-FP8", {"method": "mtp", "num_speculative_tokens": 3}
    all_ = _engine(name, {"speculative-config": mtp}).weights
    assert all_ == pytest.approx(30.9e9, rel=0.01)
    half = _engine(name, {"speculative-config": mtp, "tensor-parallel-size": 2}).weights
    assert half / GIB == pytest.approx(14.28, rel=0.01)
    assert _planned(name).weights < all_
    assert _engine(name, {"language-model-only": True}).weights < _planned(name).weights


def test_a_draft_model_has_weights_and_a_cache() -> None:
    values: dict[str, Any] = {
        "speculative-config": {
            "model": "Qwen/Qwen2.5-Coder-0.5B-Instruct",
            "revision": REVISIONS["Qwen/Qwen2.5-Coder-0.5B-Instruct"],
            "num_speculative_tokens": 4,
        }
    }
    alone = _planned("Qwen/Qwen2.5-14B-Instruct")
    drafted = _planned("Qwen/Qwen2.5-14B-Instruct", **values)
    assert drafted.weights == alone.weights + 2 * 494_032_768
    assert drafted.tokens < alone.tokens


def test_fewer_states_than_slots_are_named() -> None:
    engine = _engine("Qwen/Qwen3.8-27B-FP8", {"max-num-seqs": 1024, "gpu-memory-utilization": 0.9})
    (problem,) = Plan("cuda", 96 * GIB, [engine]).problems()
    assert "fewer than its 1024 slots" in problem


def test_encoders_have_no_cache() -> None:
    config = {"model_type": "bert", "hidden_size": 128, "intermediate_size": 128, "vocab_size": 512}
    values = {"max-num-seqs": 8, "max-model-len": 512, "kv-cache-memory-bytes": "1G"}
    engine = memory.engine_memory("embedding", values, Model("bert", config, {"F32": 10**6}), "cuda", GIB)
    assert engine.kv_cache == 0
    assert Plan("cuda", 24 * GIB, [engine]).problems() == []


def test_an_offloaded_cache_takes_memory_of_the_machine() -> None:
    engine = _engine("Qwen/Qwen2.5-14B-Instruct", {"kv-offloading-size": 32})
    assert engine.offloaded == 32 * GIB
    assert engine.total == _planned("Qwen/Qwen2.5-14B-Instruct").total


def _profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> settings.Settings:
    loaded = settings.load(tmp_path)
    monkeypatch.setattr(settings, "PROFILES", tmp_path)
    shutil.copytree(ROOT / "config" / "engines" / name, tmp_path / name)
    return settings.Settings(tmp_path, loaded.variables | {"PROFILE": name})


def test_only_write_changes_the_profile_and_keeps_its_comments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = _profile(tmp_path, monkeypatch, "blackwell-96gb")
    path = own.profile / "coder.yaml"
    before = path.read_text()
    assert plan.report(own, 95.5, write=False) == 0
    assert path.read_text() == before
    assert plan.report(own, 95.5, write=True) == 0
    after = path.read_text()
    changed = {line for line in after.splitlines() if line not in before.splitlines()}
    assert {line.split(":")[0] for line in changed} == {"kv-cache-memory-bytes", "gpu-memory-utilization"}
    assert [line for line in after.splitlines() if line.startswith("#")] == [
        line for line in before.splitlines() if line.startswith("#")
    ]


def test_nothing_is_written_when_nothing_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = _profile(tmp_path, monkeypatch, "blackwell-96gb")
    before = (own.profile / "coder.yaml").read_text()
    with pytest.raises(Failure, match="nothing was written"):
        plan.report(own, 40, write=True)
    assert (own.profile / "coder.yaml").read_text() == before
    assert plan.report(own, 40, write=False) == 1
