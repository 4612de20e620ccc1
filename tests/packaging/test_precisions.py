"""Every precision of the embedded model: its command line as vLLM itself reads it."""

import itertools
import json
import re
import subprocess

from services.engine.precision import VARIANTS
from services.stack.environments import BY_NAME, ROOT

PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
make_arg_parser(parser.add_subparsers().add_parser("serve"))
parsed = [parser.parse_args(["serve", *arguments]) for arguments in json.loads(sys.argv[1])]
names = ("model_tag", "dtype", "kv_cache_memory_bytes", "max_num_seqs")
print("PARSED" + json.dumps([[getattr(each, name) for name in names] for each in parsed]))
"""


def test_a_precision_overrides_the_profile_and_leaves_the_rest() -> None:
    cases = list(itertools.product(("coder", "general"), VARIANTS.values()))
    lines = [
        [variant.model, "--config", f"config/engines/cpu/{alias}.yaml", *variant.arguments]
        for alias, variant in cases
    ]
    answer = subprocess.run(
        [str(BY_NAME["engine"].python), "-c", PARSE, json.dumps(lines)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    found = re.search(r"PARSED(.*)", answer.stdout)
    assert found
    for (_, variant), (model, dtype, kv_cache, slots) in zip(cases, json.loads(found.group(1)), strict=True):
        assert (model, dtype, slots) == (variant.model, variant.settings["dtype"], 8)
        assert kv_cache == (1536 if dtype == "float32" else 768) * 2**20
