"""Every engine profile is read by vLLM's own argument parser, in the engine's environment."""

import json
import re
import subprocess
from typing import Any

import pytest

from services.stack.environments import BY_NAME, ROOT

PROFILES = sorted((ROOT / "config" / "engines").glob("*/*.yaml"))
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
    assert arguments["kv_cache_memory_bytes"] > 0
    assert arguments["host"] is None, "where an engine listens is said at its start, not in a profile"


def test_both_engines_have_a_profile_everywhere() -> None:
    names: dict[str, set[str]] = {}
    for path in PROFILES:
        names.setdefault(path.parent.name, set()).add(path.stem)
    assert {"cpu", "blackwell-96gb"} <= set(names)
    assert all(found == {"coder", "general"} for found in names.values())
    assert all((ROOT / "config" / "engines" / name / "engine.env").exists() for name in names)
