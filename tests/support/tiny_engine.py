"""Loads a tiny model in vLLM and says what vLLM logs of its KV cache. Run by the engine's Python.

    .envs/engine/bin/python tests/support/tiny_engine.py tests/unit/stack/kv_cache.yaml gated-deltanet

The file has cases by name: `config` is the model's config.json, `settings` are those of vLLM. The weights are
random, so the text would be noise; the layers, and with them the cache, are those of the architecture.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_AOT_COMPILE": "0",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "OMP_NUM_THREADS": "1",
}


class NotOnThisCpuError(RuntimeError):
    """vLLM's library for CPUs without AVX-512 has no kernels for this model's layers."""


def kv_cache(python: Path, cases: Path, name: str) -> tuple[int, float]:
    """The tokens in the KV cache and the contexts that it holds, as vLLM logs them for a case.

    Raises:
        NotOnThisCpuError: see there.
        AssertionError: vLLM does not load the model.
    """
    done = subprocess.run(
        [str(python), __file__, str(cases), name],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    found = re.findall(r"KV cache size: ([\d,]+) tokens.*?([\d.]+)x", done.stdout)
    if "no attribute 'causal_conv1d_weight_pack'" in done.stdout:
        raise NotOnThisCpuError(f"vLLM's library for CPUs without AVX-512 has no kernels for {name}")
    assert found, done.stdout[-3000:]
    ((tokens, contexts),) = found
    return int(tokens.replace(",", "")), float(contexts)


def _load(case: dict[str, dict[str, object]]) -> None:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    settings = {name.replace("-", "_"): value for name, value in case["settings"].items()}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(case["config"]))
        arguments = EngineArgs(
            model=folder,
            load_format="dummy",
            skip_tokenizer_init=True,
            enforce_eager=True,
            disable_log_stats=True,
            **settings,
        )
        LLMEngine.from_engine_args(arguments)


if __name__ == "__main__":
    _load(yaml.safe_load(Path(sys.argv[1]).read_text())[sys.argv[2]])
