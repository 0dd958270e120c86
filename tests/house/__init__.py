"""House checks: what the project asks of every file beyond what ruff and mypy see."""
