"""The transparency log's formats, pure: tiles, proofs, policies. Pages: docs/spec/log.md."""
