"""Writes `expected.json`: the facts of the recorded sessions, as they are to stay.

    python -m tests.vectors.postgres.expect

Read the difference line by line before committing it.
"""

import json

from tests.capture.postgres.codec import pg_script
from tests.capture.postgres.codec.test_tracker import summary


def main():
    found = {
        name: summary(pg_script.facts(script, parameters=True))
        for name, script in pg_script.captures()
    }
    sessions = ",\n".join(
        json.dumps(name) + ": [\n" + ",\n".join(json.dumps(fact) for fact in facts) + "\n]"
        for name, facts in found.items()
    )
    (pg_script.VECTORS / "expected.json").write_text("{\n" + sessions + "\n}\n")


if __name__ == "__main__":
    main()
