"""`vllm serve` with the embedded model, in the precision that suits this CPU.

`python -m services.engine OPTIONS`: the options are vLLM's. What precision.py chose is put before and after
them, and the process becomes vLLM.
"""

import os
import sys
from pathlib import Path

from services.engine import precision


def main() -> int:
    """Become `vllm serve`; returns an exit status only when that is impossible."""
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
    vllm = str(Path(sys.executable).with_name("vllm"))
    os.execv(vllm, [vllm, "serve", variant.model, *sys.argv[1:], *variant.arguments])  # noqa: S606 - no shell


if __name__ == "__main__":
    sys.exit(main())
