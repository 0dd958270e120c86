"""`sealtape-capture`: one capture node, with nothing but the capture extra installed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from sealtape import __version__
from sealtape.capture.logs import configure
from sealtape.capture.supervisor import Supervisor
from sealtape.schemas.errors import SealtapeError, SettingsError
from sealtape.schemas.settings import Settings, load_settings

DESCRIPTION = """\
A capture node: clients connect to it with a token, it connects them to targets, and everything
that passes is recorded before it is passed on.

  sealtape-capture -c /etc/sealtape/sealtape.toml

Targets, identity provider, listeners and limits are in the settings file (docs/config.md); how
clients connect is in docs/connect.md. What was spooled by a node that died is adopted and shipped
at the next start.
"""

EPILOG = """\
signals
  SIGTERM, SIGINT   drain: take no new connection, end sessions that are at rest, the others after
                    grace_s, wait for the bus, exit. A second one exits at once; the spool keeps
                    what the bus does not have.

exit codes
  0  drained, the bus has everything     64  usage or settings error
  1  --check found something wrong
  75 drained, the spool keeps a rest     69  an address cannot be had
                                         74  a store failed      77  a key is missing
"""

NOT_SHIPPED = 75
CONFIG_NAME = "sealtape.toml"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; the documentation's test walks it."""
    parser = argparse.ArgumentParser(
        prog="sealtape-capture",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sealtape {__version__}")
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        help="the deployment's sealtape.toml (else $SEALTAPE_CONFIG, else ./sealtape.toml)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON line when ready, errors as JSON"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="look at everything this node needs, print what is wrong and what to do, then end",
    )
    # What the supervisor tells its workers.
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--boot", type=bytes.fromhex, help=argparse.SUPPRESS)
    parser.add_argument("--listen", help=argparse.SUPPRESS)
    parser.add_argument("--vitals", type=int, help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a capture node until it is told to stop; return the exit code."""
    args = build_parser().parse_args(argv)
    try:
        path = config_path(args.config)
        settings = settings_at(path, tell=not args.check)
        if args.check:
            return _check(settings, as_json=args.json)
        configure(
            settings.deployment.log_format,
            room="capture",
            node=settings.deployment.node,
            worker="" if args.worker is None else str(args.worker),
        )
        ready = _announce(path, settings, as_json=args.json)
        if args.worker is None and settings.capture.workers > 1:
            return _run(settings, Supervisor(path=path, settings=settings, on_ready=ready).run())
        return _run(settings, _serve(settings, args, ready))
    except SealtapeError as exc:
        _report(exc, as_json=args.json)
        return exc.exit_code
    except KeyboardInterrupt:
        return 130


def config_path(given: str | None) -> Path:
    """Return the settings file: the option, the variable, or the one in the working folder.

    Raises:
        SettingsError: there is none.
    """
    path = Path(given or os.environ.get("SEALTAPE_CONFIG") or CONFIG_NAME)
    if path.is_dir():
        path /= CONFIG_NAME
    if not path.is_file():
        raise SettingsError(
            f"There is no settings file at {path}.",
            hint="Name it with -c, set SEALTAPE_CONFIG, or make one with `sealtape init DIR`.",
        )
    return path.absolute()


def settings_at(path: Path, *, tell: bool = True) -> Settings:
    """Return the settings of one file, and `tell` their warnings on standard error.

    SEALTAPE_NODE takes the place of `deployment.node`.

    Raises:
        SettingsError: it cannot be read, or something in it is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(
            f"The settings file {path} cannot be read: {exc}.",
            hint="It must be a readable UTF-8 file.",
        ) from exc
    settings = load_settings(text, base=str(path.parent), node=os.environ.get("SEALTAPE_NODE", ""))
    for warning in settings.warnings if tell else ():
        print(f"warning: {warning}", file=sys.stderr)
    return settings


def _check(settings: Settings, *, as_json: bool) -> int:
    """Do what `sealtape doctor --room capture` does, which needs more to be installed."""
    from sealtape.capture.checks import Report, check_capture, check_settings
    from sealtape.capture.checks.buses import check_buses

    async def look() -> Report:
        node, buses = await asyncio.gather(
            check_capture(settings), check_buses(settings, ["capture"])
        )
        return Report([*check_settings(settings), *node, *buses])

    report = asyncio.run(look())
    print(*([json.dumps(report.to_json())] if as_json else report.lines()), sep="\n")
    return report.exit_code(strict=False)


def _announce(path: Path, settings: Settings, *, as_json: bool) -> Callable[[dict[str, str]], None]:
    def ready(listeners: dict[str, str]) -> None:
        if as_json:
            line = {
                "ready": True,
                "config": str(path),
                "listeners": listeners,
                "targets": sorted(settings.targets),
            }
            print(json.dumps(line), flush=True)
        else:
            for protocol, address in listeners.items():
                print(f"{protocol} on {address}", flush=True)

    return ready


def _run(settings: Settings, work: Coroutine[Any, Any, int]) -> int:
    """Run `work` on the loop that the settings name."""
    with asyncio.Runner(loop_factory=loop_factory(settings.capture.loop)) as runner:
        return runner.run(work)


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the event loop: `uvloop`, `asyncio`, or `auto` for the faster one here.

    Raises:
        SettingsError: uvloop is demanded and not installed.
    """
    if name == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError as exc:
        if name == "auto":
            return asyncio.new_event_loop
        raise SettingsError(
            "capture.loop is uvloop, which is not installed.", hint='Set loop = "auto".'
        ) from exc
    return uvloop.new_event_loop


async def _serve(
    settings: Settings, args: argparse.Namespace, ready: Callable[[dict[str, str]], None]
) -> int:
    """Run one worker in this process."""
    from dataclasses import replace

    from sealtape.capture.node import start_capture

    if args.listen:
        postgres = replace(settings.capture.postgres, listen=args.listen)
        settings = replace(settings, capture=replace(settings.capture, postgres=postgres))
    stopping = stop_signal()
    running = await start_capture(
        settings,
        on_ready=ready,
        number=args.worker or 0,
        boot=args.boot,
        shared=args.worker is not None,
        vitals=None if args.vitals is None else socket.socket(fileno=args.vitals),
    )
    await stopping.wait()
    return 0 if await running.stop() else NOT_SHIPPED


def stop_signal() -> asyncio.Event:
    """Return an event that the first SIGTERM or SIGINT sets; a second one ends the process."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop(number: signal.Signals) -> None:
        stopping.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop, number)
    return stopping


def _report(error: SealtapeError, *, as_json: bool) -> None:
    if as_json:
        body = {"error": {"code": error.code, "message": str(error), "exit_code": error.exit_code}}
        print(json.dumps(body), file=sys.stderr)
    else:
        print(f"sealtape-capture: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
