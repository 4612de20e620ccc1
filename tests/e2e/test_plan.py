"""The plan's KV cache against what the running engines themselves report."""

import re

import httpx
import pytest
import yaml

from services.stack import memory, settings
from services.stack.environments import BY_NAME, ROOT
from services.stack.models import Model
from tests.support import tiny_engine
from tests.support.stack import Stack

CACHES = ROOT / "tests" / "unit" / "stack" / "kv_cache.yaml"


@pytest.mark.parametrize("number", [0, 1], ids=["coder", "general"])
def test_the_planned_cache_is_the_one_that_vllm_reports(stack: Stack, number: int) -> None:
    loaded = settings.load(stack.home)
    engine = memory.plan(loaded, 64 * memory.GIB).engines[number]
    log = (loaded.logs / f"{engine.alias}.log").read_text()
    logged = int(re.findall(r"KV cache size: ([\d,]+) tokens", log)[-1].replace(",", ""))
    concurrency = float(re.findall(r"tokens per request: ([\d.]+)x", log)[-1])
    metrics = httpx.get(f"{stack.engines[engine.alias]}/metrics").text
    (info,) = re.findall(r"^vllm:cache_config_info\{(.*)\}", metrics, re.M)
    facts = dict(re.findall(r'(\w+)="([^"]*)"', info))
    assert engine.tokens == pytest.approx(logged, rel=0.02)
    assert engine.tokens == pytest.approx(int(facts["num_gpu_blocks"]) * int(facts["block_size"]), rel=0.02)
    assert engine.contexts == pytest.approx(concurrency, rel=0.02)


# The others were loaded once, and are compared in tests/unit/stack/test_memory.py.
@pytest.mark.parametrize("name", ["gated-deltanet-mtp", "sliding-window"])
def test_the_planned_cache_of_hybrid_models_is_the_one_that_vllm_reports(name: str) -> None:
    try:
        tokens, contexts = tiny_engine.kv_cache(BY_NAME["engine"].python, CACHES, name)
    except tiny_engine.NotOnThisCpuError as error:
        pytest.skip(str(error))
    case = yaml.safe_load(CACHES.read_text())[name]
    model = Model(name, case["config"], {"BF16": 0})
    engine = memory.engine_memory("coder", case["settings"], model, "cpu", memory.GIB)
    assert engine.tokens == pytest.approx(tokens, rel=0.02)
    assert engine.contexts == pytest.approx(contexts, rel=0.02)
