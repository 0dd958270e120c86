"""Writes the files beside it from the adapter's own definitions; a test compares.

python deploy/opensearch/generate.py
"""

import json
from pathlib import Path

from sealtape.indexer.index.opensearch.dashboards import saved_objects
from sealtape.indexer.index.opensearch.layout import Layout
from sealtape.indexer.index.opensearch.policies import policies
from sealtape.indexer.index.opensearch.roles import roles

LAYOUT = Layout("sealtape")
"""`stores.index = "opensearch://…/sealtape"`, with its defaults."""
EXAMPLE = {"standard": 400 * 86_400.0}
HERE = Path(__file__).parent

_ROLES = """\
# The roles of the index `sealtape`, as `sealtape index setup` loads them into the security plugin.
# For another prefix than `sealtape`, replace it everywhere.
_meta:
  type: roles
  config_version: 2
"""


def files() -> dict[str, str]:
    """Return what each file holds, by its name."""
    found = {
        f"component-templates/{name}.json": _json(body)
        for name, body in LAYOUT.component_templates().items()
    }
    found |= {
        f"index-templates/{name}.json": _json(body)
        for name, body in LAYOUT.index_templates().items()
    }
    found |= {
        f"policies/{name}.json": _json(body) for name, body in policies(LAYOUT, EXAMPLE).items()
    }
    found["roles.yml"] = _ROLES + "".join(
        f"\n{name}:\n{_yaml(body, 1)}" for name, body in roles(LAYOUT).items()
    )
    found["dashboards.ndjson"] = "".join(
        json.dumps(item, sort_keys=True) + "\n" for item in saved_objects(LAYOUT)
    )
    return found


def _json(body) -> str:
    return json.dumps(body, indent=2) + "\n"


def _yaml(body, depth) -> str:
    """Maps, lists of maps and lists of texts, in the plainest form."""
    indent = "  " * depth
    lines = []
    for name, value in body.items():
        if isinstance(value, str):
            lines.append(f"{indent}{name}: {json.dumps(value)}\n")
            continue
        lines.append(f"{indent}{name}:\n")
        for item in value:
            if isinstance(item, str):
                lines.append(f"{indent}- {json.dumps(item)}\n")
            else:
                inner = _yaml(item, depth + 1)
                lines.append(f"{indent}- {inner.lstrip()}")
    return "".join(lines)


if __name__ == "__main__":
    for path, text in files().items():
        (HERE / path).parent.mkdir(exist_ok=True)
        (HERE / path).write_text(text)
