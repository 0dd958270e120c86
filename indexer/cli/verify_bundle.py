"""`sealtape verify BUNDLE --policy FILE`: a bundle, offline, by the verifier's own policy."""

from __future__ import annotations

import argparse
import mmap
import os
import time
from pathlib import Path

from sealtape.indexer.cli import output
from sealtape.indexer.cli.bundle_report import as_html, as_text
from sealtape.indexer.cli.verify_log import read_policy
from sealtape.schemas.errors import NotFound, StoreError, UsageError
from sealtape.schemas.verify.bundle import verify_bundle

__all__ = ["names_bundle", "run"]


def names_bundle(name: str | None) -> bool:
    """Whether what `verify` was given is a file, and not a session's id."""
    return name is not None and (os.sep in name or "." in name or Path(name).is_file())


def run(args: argparse.Namespace) -> int:
    """Verify, report, return the verdict's exit code."""
    if not args.policy:
        msg = "A bundle is verified by your own policy, which is never in it."
        raise UsageError(msg, hint="Name it with --policy; docs/verify.md says what it has.")
    policy = read_policy(Path(args.policy))
    place = Path(args.session)
    report = verify_bundle(_mapped(place), policy, now_ns=time.time_ns())
    if args.html:
        try:
            Path(args.html).write_text(as_html(report, place.name), encoding="utf-8")
        except OSError as exc:
            raise StoreError(f"The report {args.html} cannot be written: {exc}.") from exc
    with output.verdict():
        if args.json:
            output.json_line(report.to_json())
        else:
            for line in as_text(report):
                print(output.line(line))
    return report.exit_code


def _mapped(path: Path) -> memoryview:
    """The file's bytes, which are read when they are looked at."""
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError as exc:
        raise NotFound(f"There is no bundle {path}.", hint="`sealtape export` writes one.") from exc
    except OSError as exc:
        raise StoreError(f"The bundle {path} cannot be read: {exc}.") from exc
