"""`./run setup`: prepares what the service needs before it can start."""

import subprocess

from services.stack import environments, models, precision
from services.stack.console import console
from services.stack.environments import ROOT
from services.stack.failure import Failure
from services.stack.settings import Settings, ensure_key, load

# The packaged model for embeddings (services/engine/embedding_model.py).
EMBEDDING = "models/all-minilm-l6-v2"


def setup(environment: list[str]) -> None:
    """Prepare everything, or only the named environments."""
    if environment:
        environments.ensure(*environment)
    else:
        prepare(load())


def prepare(settings: Settings) -> None:
    """Install the environments, prepare and measure the embedded model, generate the key: what is missing."""
    environments.ensure("router", "ui", say=console.print)
    if settings.engines:
        prepare_engine(settings)
        if precision.embedded(settings):
            console.print(f"Precision {precision.chosen(settings)}")
    ensure_key(settings.home, say=console.print)


def prepare_engine(settings: Settings) -> None:
    """As `prepare`, for an engine that runs alone."""
    environments.ensure("engine" if settings.engine == "cpu" else "engine-cuda", say=console.print)
    if settings.engine == "cpu":
        precision.prepare(settings)
    prepare_models(settings)


def _prepare_embedding() -> None:
    if (ROOT / EMBEDDING).exists():
        return
    environments.ensure("embedding", say=console.print)
    command = [str(environments.BY_NAME["embedding"].python), "-m", "services.engine.embedding_model"]
    if subprocess.run(command, cwd=ROOT).returncode != 0:
        raise Failure("the model for embeddings could not be prepared, see above; ./run up tries again.")


def prepare_models(settings: Settings) -> None:
    """Prepare and fetch the models of the settings' profile, if one is missing.

    Raises:
        Failure: it did not succeed.
    """
    if any(settings.values(kind)["model"] == EMBEDDING for kind in settings.kinds):
        _prepare_embedding()
    if models.absent(settings):
        # Imported where it is used: huggingface_hub takes half a second, and most commands do without.
        from services.stack.commands import fetch

        fetch.fetch(settings)
