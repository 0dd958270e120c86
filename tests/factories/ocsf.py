"""Whether an event is what the OCSF schema of its version says."""

import functools
import json

import jsonschema
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

NAMED = [("activity_id", "activity_name"), ("severity_id", "severity"), ("status_id", "status")]
OTHER = 99


@functools.cache
def _source(version):
    return get_ocsf_schema(version)


@functools.cache
def _validator(version, class_uid, profiles):
    schema = OcsfJsonSchemaEmbedded(_source(version))
    name = schema.lookup_class_name_from_uid(class_uid)
    found = schema.get_class_schema(name, profiles=list(profiles))
    return _source(version)["classes"][name], jsonschema.Draft202012Validator(found)


def problems(event):
    """What is wrong with an event (its bytes, or decoded); empty when nothing is."""
    if isinstance(event, bytes | str):
        event = json.loads(event)
    version, profiles = event["metadata"]["version"], event["metadata"].get("profiles", ())
    kind, validator = _validator(version, event["class_uid"], tuple(profiles))
    found = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(event)]
    return found + _misnamed(event, kind)


def _misnamed(event, kind):
    """Captions that are not the schema's; a JSON schema knows only the numbers."""
    wanted = {
        "class_name": kind["caption"],
        "category_name": _caption(kind, event, "category_uid"),
        "type_name": f"{kind['caption']}: {event['activity_name']}",
    }
    for number, text in NAMED:
        if number in event and event[number] != OTHER:
            wanted[text] = _caption(kind, event, number)
    if event["type_uid"] != event["class_uid"] * 100 + event["activity_id"]:
        return [f"type_uid: {event['type_uid']}"]
    return [
        f"{name}: {event.get(name)!r} is not {caption!r}"
        for name, caption in wanted.items()
        if event.get(name) != caption
    ]


def _caption(kind, event, number):
    return kind["attributes"][number]["enum"][str(event[number])]["caption"]
