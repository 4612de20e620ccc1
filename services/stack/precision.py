"""The precision that CPU engines serve in, and what this CPU does in it, as the engine's room measured it.

Read from data/cache/precision.json in the checkout, beside the environments and models: it belongs to the
machine, not to one service's home.
"""

import json
import os
import subprocess
from dataclasses import dataclass

from services.stack import variables
from services.stack.environments import BY_NAME, ROOT
from services.stack.failure import Failure
from services.stack.settings import Settings

SETTING = "CPU_PRECISION"
EMBEDDED = "models/smollm2-135m-instruct"
RECORD = ROOT / "data" / "cache" / "precision.json"


@dataclass(frozen=True)
class Precision:
    """The variant `name`: a step of one and of five requests, ms, and tokens of a prompt read in a second."""

    name: str
    step_1_ms: float
    step_5_ms: float
    prompt_tokens_per_s: float

    def __str__(self) -> str:
        """What a user may expect."""
        one, five = 1000 / self.step_1_ms, 1000 / self.step_5_ms
        return (
            f"{self.name}: about {one:.0f} tokens a second on this CPU, {five:.0f} for each of five users; "
            f"reads {self.prompt_tokens_per_s:.0f} tokens of prompt a second"
        )


def embedded(settings: Settings) -> bool:
    """Whether the settings' profile serves the embedded model, which is what the figures are about."""
    files = [path.read_text() for path in settings.profile.glob("*.yaml")]
    return settings.engine == "cpu" and any(EMBEDDED in text for text in files)


def chosen(settings: Settings) -> Precision | None:
    """What CPU engines are served in, or None where it was not measured yet."""
    name = settings.variables[SETTING]
    try:
        record = json.loads(RECORD.read_text())
        name = record["quickest"] if name == "auto" else name
        return Precision(name, **record["figures"][name])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def prepare(settings: Settings) -> None:
    """Prepare the embedded model, and measure this CPU, where that was not done yet.

    Raises:
        Failure: it did not succeed.
    """
    command = [str(BY_NAME["engine"].python), "-m", "services.engine.precision"]
    # As the engines' own, so that what is measured is what is served.
    environment = variables.passed() | settings.engine_variables | environment_of(settings)
    if subprocess.run(command, cwd=ROOT, env=environment).returncode != 0:
        raise Failure("the embedded model could not be prepared, see above; ./run up tries again.")


def environment_of(settings: Settings) -> dict[str, str]:
    """The precision that is asked for, and an equal share of the cores for each engine."""
    # By default each engine would use all cores, and they would wait for each other. Those for embeddings
    # take what the others leave (supervision/supervisor.py).
    writing = [engine for engine in settings.local_engines.values() if settings.generates(engine.alias)]
    share = len(os.sched_getaffinity(0)) // max(1, len(writing))
    return {SETTING: settings.variables[SETTING], "OMP_NUM_THREADS": str(max(1, share))}
