"""Checks a document by bench.schema.json: those of JSON Schema's words that it uses, and no others."""
import json
import pathlib

PATH = pathlib.Path(__file__).with_name("bench.schema.json")
_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "number": (int, float), "integer": int}
_SILENT = {"$schema", "$defs", "title", "description"}
_KNOWN = {"type", "const", "enum", "minimum", "required", "properties", "additionalProperties", "items", "$ref"} | _SILENT


def load():
    return json.loads(PATH.read_text(encoding="utf-8"))


def problems(value, schema=None):
    """Every place where the value is not as the schema has it, a line each."""
    schema = schema or load()
    return list(_problems(value, schema, schema, "$"))


def _is(value, name):
    # bool is an int in Python, and none in JSON.
    return isinstance(value, _TYPES[name]) and not (isinstance(value, bool) and name in ("number", "integer"))


def _problems(value, schema, root, where):
    unknown = set(schema) - _KNOWN
    if unknown:
        raise ValueError(f"{where}: the schema uses {', '.join(sorted(unknown))}, which this checker does not know")
    if "$ref" in schema:
        yield from _problems(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, where)
    names = schema.get("type", [])
    names = [names] if isinstance(names, str) else names
    if names and not any(_is(value, name) for name in names):
        yield f"{where}: {value!r} is no {' or '.join(names)}"
        return
    if "const" in schema and value != schema["const"]:
        yield f"{where}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: {value!r} is none of {schema['enum']}"
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{where}: {value} is less than {schema['minimum']}"
    if isinstance(value, dict):
        yield from _members(value, schema, root, where)
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _problems(item, schema["items"], root, f"{where}[{index}]")


def _members(value, schema, root, where):
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{where}: {name} is missing"
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, member in value.items():
        if name in known:
            yield from _problems(member, known[name], root, f"{where}.{name}")
        elif others is False:
            yield f"{where}: {name} is not known"
        elif isinstance(others, dict):
            yield from _problems(member, others, root, f"{where}.{name}")
