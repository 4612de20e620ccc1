"""`./run setup`: prepares what the service needs before it can start."""

from services.stack import environments, models, precision
from services.stack.console import console
from services.stack.settings import Settings, ensure_key, load


def setup(environment: list[str]) -> None:
    """Prepare everything, or only the named environments."""
    if environment:
        environments.ensure(*environment)
    else:
        prepare(load())


def prepare(settings: Settings) -> None:
    """Install the environments, prepare and measure the embedded model, generate the key: what is missing."""
    engine = "engine" if settings.engine == "cpu" else "engine-cuda"
    environments.ensure(engine, "router", "ui", say=console.print)
    if settings.engine == "cpu":
        precision.prepare(settings)
        if precision.embedded(settings):
            console.print(f"Precision {precision.chosen(settings)}")
    prepare_models(settings)
    ensure_key(settings.home, say=console.print)


def prepare_engine(settings: Settings) -> None:
    """As `prepare`, for an engine that runs alone."""
    environments.ensure("engine" if settings.engine == "cpu" else "engine-cuda", say=console.print)
    if settings.engine == "cpu":
        precision.prepare(settings)
    prepare_models(settings)


def prepare_models(settings: Settings) -> None:
    """Fetch the models of the settings' profile, if one is missing."""
    if models.absent(settings):
        # Imported where it is used: huggingface_hub takes half a second, and most commands do without.
        from services.stack.commands import fetch

        fetch.fetch(settings)
