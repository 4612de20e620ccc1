"""`vllm serve` on a CPU, the embedded model in the precision that suits it.

`python -m services.engine OPTIONS`: the options are vLLM's. For the embedded model, what precision.py chose
is put before and after them; any other model is served as its file says. The process becomes vLLM.
"""

import os
import sys
from itertools import pairwise
from pathlib import Path

import yaml

from services.engine import precision
from services.engine.embedded_model import SHA256, folder


def main() -> int:
    """Become `vllm serve`; returns an exit status only when that is impossible."""
    vllm = str(Path(sys.executable).with_name("vllm"))
    if not _serves_embedded(sys.argv[1:]):
        os.execv(vllm, [vllm, "serve", *sys.argv[1:]])  # noqa: S606 - no shell
    try:
        variant, figures = precision.choose(lambda line: print(line, flush=True))
    except precision.UnknownPrecisionError as error:
        print(f"duoserve: {error}", file=sys.stderr)
        return precision.BAD_SETTING
    except (precision.MeasuringError, OSError) as error:
        print(f"duoserve: cannot measure this CPU: {error}", file=sys.stderr)
        return 1
    print(f"duoserve: precision {variant.name}: {figures}", flush=True)
    os.environ.update(precision.COMPILED)
    os.execv(vllm, [vllm, "serve", variant.model, *sys.argv[1:], *variant.arguments])  # noqa: S606 - no shell


def _serves_embedded(options: list[str]) -> bool:
    """Whether the file after --config is for the embedded model."""
    file = dict(pairwise(options)).get("--config")
    model = yaml.safe_load(Path(file).read_text())["model"] if file else None
    return model is None or model in {str(folder(weights)) for weights in SHA256}


if __name__ == "__main__":
    sys.exit(main())
