"""The plan's KV cache against what the running engines themselves report."""

import re

import httpx
import pytest

from services.stack import memory, settings
from tests.support.stack import Stack


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
