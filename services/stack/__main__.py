"""Entry point of `./run TASK` and `pixi run TASK`."""

import argparse
import os
import subprocess
import sys

from services.stack import doctor, environments, images, lifecycle, plan, unit
from services.stack import settings as stack_settings
from services.stack.environments import BY_NAME, ROOT
from services.stack.failure import Failure


def main() -> int:
    """Run one task; returns the exit status."""
    arguments, rest = _parser().parse_known_args()
    if rest and not hasattr(arguments, "room"):
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return _run(arguments, rest)
    except Failure as failure:
        print(f"duoserve: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nduoserve: interrupted; the same command goes on from here.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./run", description="Duoserve's tasks.")
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    up = tasks.add_parser("up", help="prepare what is missing, start, show progress until ready")
    up.add_argument("--engine", choices=["cpu", "cuda"], help="kind of machine (default: that of PROFILE)")
    up.add_argument("--detach", action="store_true", help="return when everything is ready")
    status = tasks.add_parser("status", help="state of every service and model")
    status.add_argument("--json", action="store_true")
    logs = tasks.add_parser("logs", help="the end of the logs")
    logs.add_argument("service", nargs="?", help="coder, general, router, ui ... (default: all)")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what is added")
    tasks.add_parser("down", help="stop")
    tasks.add_parser("doctor", help="check this machine and the installation")
    setup = tasks.add_parser("setup", help="prepare without starting: environments, model, key")
    setup.add_argument("environment", nargs="*", choices=[*BY_NAME, []], help="only these environments")
    fits = tasks.add_parser("plan", help="whether both models fit into the GPU's memory, and how it is split")
    fits.add_argument("--profile", help="a folder under config/engines (default: PROFILE)")
    fits.add_argument(
        "--vram", type=float, metavar="GB", help="memory to plan for (default: this machine's GPU)"
    )
    fits.add_argument("--write", action="store_true", help="put the largest split that fits into the profile")
    tasks.add_parser("pin-images", help="write the digests of other people's images beside their versions")
    service = tasks.add_parser("install-service", help="have systemd start it, at log-in or at boot")
    service.add_argument("--system", action="store_true", help="for the whole machine, at boot; needs root")
    service.add_argument("--uninstall", action="store_true", help="stop it and remove the unit")
    downloads = tasks.add_parser("models", help="download what the GPU profiles serve")
    verb = downloads.add_subparsers(dest="verb", required=True, metavar="VERB")
    fetch = verb.add_parser("fetch", help="pinned revisions, with resume; every file's hash is checked")
    fetch.add_argument("--profile", help="a folder under config/engines (default: PROFILE)")
    lock = tasks.add_parser("lock", help="write the locks from the requirements")
    lock.add_argument("--upgrade", action="store_true", help="to the newest versions allowed")
    for name, room, text in (
        ("test", "dev", "everything that needs no GPU and no Docker; takes pytest's arguments"),
        ("test-clients", "dev", "the coding agents, each really run; minutes long, and installs them (2 GB)"),
        ("test-compose", "dev", "the containers on a real Docker engine; minutes long, 15 GB of disk"),
        ("loadtest", "loadtests", "load the running service; exit status 1 when a promise is missed"),
        ("bench", "loadtests", "measure, and write reports/TIME/report.html"),
        ("eval", "stack", "the share of small coding problems that a model solves"),
        ("ide", "stack", "configurations for editors and agents: print, merge, test"),
        ("ui", "ui", "the chat app by itself; --dev reloads it when a file is saved"),
    ):
        # What follows is the room's to parse, -h included.
        task = tasks.add_parser(name, help=text, add_help=False)
        task.set_defaults(room=room)
    return parser


def _run(arguments: argparse.Namespace, rest: list[str]) -> int:
    match arguments.task:
        case "up":
            return lifecycle.up(arguments.engine, arguments.detach)
        case "status":
            return lifecycle.status(arguments.json)
        case "logs":
            return lifecycle.follow_logs(arguments.service, arguments.follow)
        case "down":
            return lifecycle.down()
        case "doctor":
            return 0 if doctor.report(stack_settings.load(stack_settings.home())) else 1
        case "setup" if arguments.environment:
            environments.ensure(*arguments.environment)
        case "setup":
            lifecycle.prepare(stack_settings.load(stack_settings.home()))
        case "plan":
            return plan.report(_profile(arguments.profile), arguments.vram, arguments.write)
        case "models":
            lifecycle.fetch_models(_profile(arguments.profile))
        case "pin-images":
            images.pin()
        case "install-service" if arguments.uninstall:
            unit.uninstall(arguments.system)
        case "install-service":
            unit.install(stack_settings.home(), arguments.system)
        case "lock":
            environments.lock(arguments.upgrade)
        case "test":
            # The tests start the service, so they need everything that it needs.
            environments.ensure("dev", "loadtests")
            lifecycle.prepare(stack_settings.load(stack_settings.home()))
            return _pytest(rest)
        case "test-clients":
            environments.ensure("dev", "aider")
            return _pytest(["tests/clients/test_agents.py", "-m", "slow", *rest])
        case "test-compose":
            environments.ensure("dev")
            return _pytest(["tests/compose", "-m", "slow", "-s", *rest])
        case "loadtest":
            return _room("loadtests", ["loadtests", "run", *rest])
        case "bench":
            return _room("loadtests", ["loadtests", "bench", *rest])
        case "eval":
            return _room("stack", ["services.evaluation", *rest])
        case "ide":
            return _room("stack", ["services.ide", *rest])
        case "ui":
            return _room("ui", ["ui", *rest])
    return 0


def _profile(name: str | None) -> stack_settings.Settings:
    settings = stack_settings.load(stack_settings.home())
    return settings.with_profile(name) if name else settings


def _pytest(arguments: list[str]) -> int:
    # Without the settings: tests have their own, and the key is not for them.
    return _module("dev", ["pytest", *arguments], {})


def _room(environment: str, command: list[str]) -> int:
    """Run a room's module in its environment, with all settings as environment variables."""
    environments.ensure(environment)
    return _module(environment, command, stack_settings.load(stack_settings.home()).variables)


def _module(environment: str, command: list[str], variables: dict[str, str]) -> int:
    python = str(BY_NAME[environment].python)
    try:
        return subprocess.run([python, "-m", *command], cwd=ROOT, env=os.environ | variables).returncode
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
