"""`vllm serve` in the precision that suits this CPU.

`python -m services.engine --config FILE OPTIONS`: the options are vLLM's. What precision.py chose is put
before and after them, and the process becomes vLLM. For the embedded model that includes one of its two kinds
of weights; any other model has only its own, and is computed in the same type. A model
for embeddings is served as its file says.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from services.engine import embedded_model, precision


def main() -> int:
    """Become `vllm serve`; returns an exit status only when that is impossible."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--config", type=Path, required=True)
    values: dict[str, Any] = yaml.safe_load(parser.parse_known_args()[0].config.read_text())
    vllm = str(Path(sys.executable).with_name("vllm"))
    os.environ.update(precision.caches())
    if values.get("runner") == "pooling":
        os.execv(vllm, [vllm, "serve", *sys.argv[1:]])  # noqa: S606 - no shell
    try:
        variant, figures = precision.choose(lambda line: print(line, flush=True))
    except precision.UnknownPrecisionError as error:
        print(f"duoserve: {error}", file=sys.stderr)
        return precision.BAD_SETTING
    except (precision.MeasuringError, OSError) as error:
        print(f"duoserve: cannot measure this CPU: {error}", file=sys.stderr)
        return 1
    if values["model"] in {str(embedded_model.folder(weights)) for weights in embedded_model.SHA256}:
        print(f"duoserve: precision {variant.name}: {figures}", flush=True)
        command = [vllm, "serve", variant.model, *sys.argv[1:], *variant.arguments]
    else:
        print(f"duoserve: {variant.settings['dtype']}, which suits this CPU", flush=True)
        command = [vllm, "serve", *sys.argv[1:], *variant.arguments_for(values)]
    os.execv(vllm, command)  # noqa: S606 - no shell


if __name__ == "__main__":
    sys.exit(main())
