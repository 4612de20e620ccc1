"""Every engine profile is read by vLLM's own argument parser, in the engine's environment."""

import json
import re
import subprocess
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from services.stack import memory, models
from services.stack.environments import BY_NAME, ROOT

PROFILES = sorted((ROOT / "config" / "engines").glob("*/*.yaml"))
# The GPUs of each profile, with their memory as nvidia-smi gives it, in MiB.
FITS = [
    ("blackwell-96gb", 97_887),  # RTX PRO 6000 Blackwell
    ("blackwell-96gb-quality", 97_887),
    ("blackwell-96gb-dense", 97_887),
    ("blackwell-96gb-2025", 97_887),
    ("ada-48gb", 49_140),  # RTX 6000 Ada
    ("ada-48gb-2025", 49_140),
    ("ada-48gb-2025", 46_068),  # L40S
    ("ada-24gb", 24_564),  # RTX 4090
    ("ada-24gb", 23_034),  # L4
    ("ada-24gb-2025", 24_564),
    ("ada-24gb-2025", 23_034),
]
PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser
parsed = {}
for path in sys.argv[1:]:
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(["--config", path])
    validate_parsed_serve_args(arguments)
    parsed[path] = {
        name: getattr(arguments, name)
        for name in (
            "served_model_name", "max_num_seqs", "max_num_queued_reqs", "kv_cache_memory_bytes", "host"
        )
    }
print("PARSED" + json.dumps(parsed))
"""


@pytest.fixture(scope="module")
def parsed() -> Any:
    paths = [str(path.relative_to(ROOT)) for path in PROFILES]
    answer = subprocess.run(
        [str(BY_NAME["engine"].python), "-c", PARSE, *paths], cwd=ROOT, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(re.search(r"PARSED(.*)", answer.stdout).group(1))  # type: ignore[union-attr]


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_profile_serves_its_alias_within_bounds(parsed: Any, path: Any) -> None:
    arguments = parsed[str(path.relative_to(ROOT))]
    assert arguments["served_model_name"][0] == path.stem
    assert arguments["max_num_queued_reqs"] > arguments["max_num_seqs"]
    assert arguments["kv_cache_memory_bytes"] == memory.parse_size(
        yaml.safe_load(path.read_text())["kv-cache-memory-bytes"]
    )
    assert arguments["host"] is None, "where an engine listens is said at its start, not in a profile"


def test_both_engines_have_a_profile_everywhere() -> None:
    names: dict[str, set[str]] = {}
    for path in PROFILES:
        names.setdefault(path.parent.name, set()).add(path.stem)
    assert {profile for profile, _ in FITS} | {"cpu"} <= set(names)
    assert all(found >= {"coder", "general"} for found in names.values())
    assert all((ROOT / "config" / "engines" / name / "engine.env").exists() for name in names)


def test_engines_keep_connections_longer_than_the_router_does() -> None:
    """Which LiteLLM does for 120 s (AIOHTTP_KEEPALIVE_TIMEOUT); vLLM's own default is 5 s."""
    for path in (ROOT / "config" / "engines").glob("*/engine.env"):
        assert int(dotenv_values(path)["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"] or 0) > 120, path


@pytest.mark.parametrize(("profile", "mib"), FITS)
def test_a_gpu_profile_fits_its_gpus(profile: str, mib: int) -> None:
    # All engines of the profile, also those that config/litellm.yaml does not list.
    engines = []
    for path in PROFILES:
        if path.parent.name == profile:
            values = yaml.safe_load(path.read_text())
            model = models.find(values["model"], values.get("revision"))
            engines.append(memory.engine_memory(path.stem, values, model, "cuda", mib * 2**20))
    planned = memory.Plan("cuda", mib * 2**20, engines)
    assert planned.problems() == []


def test_prefixes_are_not_cached_with_mtp_and_weights_are_not_fp4() -> None:
    """Known faults: vllm#53912, wrong states with MTP and a prefix cache; flashinfer#2577, FP4 on SM120."""
    for path in PROFILES:
        values = yaml.safe_load(path.read_text())
        if values.get("speculative-config", {}).get("method") == "mtp":
            assert not values["enable-prefix-caching"], path
        assert "FP4" not in values["model"], path


def test_every_hub_model_is_pinned_once() -> None:
    known = yaml.safe_load((ROOT / "config" / "models.yaml").read_text())
    for path in PROFILES:
        values = yaml.safe_load(path.read_text())
        if not models.is_folder(values["model"]):
            assert re.fullmatch(r"[0-9a-f]{40}", values["revision"])
            assert known[values["model"]]["revision"] == values["revision"]


def test_awq_models_with_an_fp8_kv_cache_compute_in_bfloat16() -> None:
    # AWQ checkpoints say float16, with which FP8 attention does not start (docs/benchmarks/2026-11-28-h100).
    for path in PROFILES:
        values = yaml.safe_load(path.read_text())
        if values["model"].endswith("-AWQ") and values.get("kv-cache-dtype") == "fp8":
            assert values.get("dtype") == "bfloat16", path
