"""`./run setup`: prepares what the service needs before it can start."""

import subprocess

from services.stack import environments, models
from services.stack.commands import doctor
from services.stack.console import console
from services.stack.environments import BY_NAME, ROOT
from services.stack.failure import Failure
from services.stack.settings import Settings, ensure_key, load


def setup(environment: list[str]) -> None:
    """Prepare everything, or only the named environments."""
    if environment:
        environments.ensure(*environment)
    else:
        prepare(load())


def prepare(settings: Settings) -> None:
    """Install the environments, convert the embedded model and generate the key, where they are missing."""
    engine = "engine" if settings.engine == "cpu" else "engine-cuda"
    environments.ensure(engine, "router", "ui", say=console.print)
    if settings.engine == "cpu" and not doctor.EMBEDDED_MODEL.exists():
        console.print("Preparing the embedded model (half a minute, once)")
        command = [str(BY_NAME["engine"].python), "-m", "services.engine.model", str(doctor.EMBEDDED_MODEL)]
        if subprocess.run(command, cwd=ROOT).returncode != 0:
            raise Failure("the embedded model could not be prepared, see above; ./run up tries again.")
    if not all(models.here(name, revision) for name, revision in models.pinned(settings.profile)):
        # Imported where it is used: huggingface_hub takes half a second, and most commands do without.
        from services.stack.commands import fetch

        fetch.fetch(settings)
    ensure_key(settings.home, say=console.print)
