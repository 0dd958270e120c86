"""The verifier without I/O: fed records and rows, it answers with findings and a verdict."""

from sealtape.schemas.verify.findings import Finding, Report, Verdict
from sealtape.schemas.verify.fragment import FragmentVerifier, Run, Single
from sealtape.schemas.verify.segment import ChainVerifier, SegmentVerifier
from sealtape.schemas.verify.session import SessionVerifier

__all__ = [
    "ChainVerifier",
    "Finding",
    "FragmentVerifier",
    "Report",
    "Run",
    "SegmentVerifier",
    "SessionVerifier",
    "Single",
    "Verdict",
]
