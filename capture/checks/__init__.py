"""What can be looked at before a capture node runs, or while it does, without changing anything."""

from sealtape.capture.checks.report import Report
from sealtape.capture.checks.room import check_capture, check_settings

__all__ = ["Report", "check_capture", "check_settings"]
