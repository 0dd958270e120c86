"""Preparing a cluster: templates, roles, the backstop policy, and Dashboards.

Only the templates must be there. What else cannot be loaded, because the plugin is not installed or
the login may not, is said and not raised.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sealtape.indexer.index.opensearch.adapter import newer_templates, parse_url, store_url
from sealtape.indexer.index.opensearch.client import Cluster
from sealtape.indexer.index.opensearch.dashboards import saved_objects
from sealtape.indexer.index.opensearch.layout import Layout, is_newer
from sealtape.indexer.index.opensearch.policies import policies
from sealtape.indexer.index.opensearch.roles import roles
from sealtape.schemas.errors import SettingsError, StoreError

__all__ = ["prepare_cluster"]

Json = dict[str, Any]

_ROLES = "/_plugins/_security/api/roles"
_POLICIES = "/_plugins/_ism/policies"
_NO_PLUGIN = (400, 404, 405)
"""How OpenSearch answers a path that no plugin serves."""


async def prepare_cluster(
    url: str, base: Path, *, delete_after: Mapping[str, float] | None = None, dashboards: str = ""
) -> list[str]:
    """Load what belongs to an index into its cluster; return what was done, in words.

    Args:
        url: the index's; its user must be permitted to do this.
        base: what relative paths of files are relative to.
        delete_after: seconds by retention class; with it the backstop policies are loaded.
        dashboards: `http(s)://HOST:PORT` of OpenSearch Dashboards; empty: not loaded. The login is
            that of `url`.

    Raises SettingsError and StoreError.
    """
    cluster, layout = parse_url(url, base)
    try:
        done = [await _templates(cluster, layout), await _load_roles(cluster, layout)]
        if delete_after:
            done.append(await _load_policies(cluster, layout, delete_after))
    finally:
        await cluster.close()
    if dashboards:
        done.append(await _load_dashboards(url, base, layout, dashboards))
    return done


async def _templates(cluster: Cluster, layout: Layout) -> str:
    components, indices = layout.component_templates(), layout.index_templates()
    for kind in ("component_template", "index_template"):
        path = f"/_{kind}/{layout.prefix}-*"
        answer = await cluster.request("GET", path, missing_ok=True) or {}
        for item in answer.get(f"{kind}s", ()):
            if is_newer(item[kind].get("_meta")):
                raise newer_templates(item["name"])
    for name, body in components.items():
        await cluster.request("PUT", f"/_component_template/{name}", body)
    for name, body in indices.items():
        await cluster.request("PUT", f"/_index_template/{name}", body)
    return f"loaded {len(components)} component and {len(indices)} index templates"


async def _load_roles(cluster: Cluster, layout: Layout) -> str:
    wanted = roles(layout)
    try:
        for name, body in wanted.items():
            await cluster.request("PUT", f"{_ROLES}/{name}", body)
    except StoreError as exc:
        return _not_loaded("roles", "security plugin", exc)
    return f"loaded the roles {' and '.join(wanted)}"


async def _load_policies(
    cluster: Cluster, layout: Layout, delete_after: Mapping[str, float]
) -> str:
    wanted = policies(layout, delete_after)
    try:
        for name, body in wanted.items():
            path = f"{_POLICIES}/{name}"
            there = await cluster.request("GET", path, missing_ok=True)
            params = {}
            if there:
                params = {
                    "if_seq_no": str(there["_seq_no"]),
                    "if_primary_term": str(there["_primary_term"]),
                }
            await cluster.request("PUT", path, body, params=params)
    except StoreError as exc:
        return _not_loaded("the backstop policies", "Index State Management plugin", exc)
    return f"loaded {len(wanted)} backstop policies"


def _not_loaded(what: str, plugin: str, exc: StoreError) -> str:
    if exc.context.get("status") in _NO_PLUGIN:
        return f"did not load {what}: the cluster has no {plugin}"
    return f"did not load {what}: {exc.message}"


async def _load_dashboards(url: str, base: Path, layout: Layout, address: str) -> str:
    """Import the saved objects; what has their ids is replaced."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise SettingsError(
            f"{address!r} is not the address of OpenSearch Dashboards.",
            hint="Write http://HOST:5601 or https://HOST:5601, with the base path if it has one.",
        )
    parsed = store_url(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    options = {**parsed.options}
    if parts.scheme == "http":
        options["tls"] = "disable"
    elif parsed.text("tls") == "disable":
        del options["tls"]  # the cluster's; Dashboards is asked with what https promises
    cluster = Cluster(replace(parsed, hosts=(f"{host}:{port}",), options=options), base)
    objects = saved_objects(layout)
    boundary = secrets.token_hex(16)
    try:
        answer = await cluster.request(
            "POST",
            f"{parts.path.rstrip('/')}/api/saved_objects/_import",
            _multipart(objects, boundary),
            params={"overwrite": "true"},
            headers={
                "content-type": f"multipart/form-data; boundary={boundary}",
                "osd-xsrf": "true",
            },
        )
    except StoreError as exc:
        return f"did not load dashboards: {exc.message}".replace("OpenSearch at", "what answers at")
    finally:
        await cluster.close()
    if not isinstance(answer, dict) or not answer.get("success"):
        return "did not load dashboards: not all saved objects were taken"
    return f"loaded {len(objects)} saved objects into Dashboards"


def _multipart(objects: list[Json], boundary: str) -> bytes:
    lines = "\n".join(json.dumps(item, ensure_ascii=False) for item in objects)
    head = (
        f"--{boundary}\r\n"
        'Content-Disposition: form-data; name="file"; filename="sealtape.ndjson"\r\n'
        "Content-Type: application/x-ndjson\r\n\r\n"
    )
    return f"{head}{lines}\r\n--{boundary}--\r\n".encode()
