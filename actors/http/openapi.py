"""The OpenAPI document of the HTTP bridge, made from its table of operations. Pure."""

from typing import Any

import msgspec

from ...transport.protocol.data import Fetch, Publish, PublishRecord
from .bridge import MAX_EVENT_ID
from .operations import OPERATIONS, Operation
from .problems import CONTENT_TYPE

_REF = "#/components/schemas/{name}"
_EVENTS = "text/event-stream"


def document(version: str) -> bytes:
    kinds = [kind for operation in OPERATIONS for kind in (operation.kind, operation.reply_type)]
    _, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    schemas: dict[str, Any] = dict(components)
    schemas["Problem"] = _problem_schema()
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, schemas)
    for operation in OPERATIONS:
        schemas.pop(operation.kind.__name__, None)
        # Replies are correlated by the connection, not by the id of the wire protocol.
        reply = schemas[operation.reply_type.__name__]
        reply["properties"] = {name: each for name, each in reply["properties"].items() if name != "id"}
    record = schemas[PublishRecord.__name__]
    record["properties"]["json"] = {"description": "Any JSON; in place of value and value_text."}
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Planaria", "version": version},
            "paths": paths,
            "components": {
                "schemas": schemas,
                "securitySchemes": {
                    "token": {"type": "http", "scheme": "bearer"},
                    "password": {"type": "http", "scheme": "basic"},
                },
            },
            "security": [{}, {"token": []}, {"password": []}],
        }
    )


def _described(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    known = schemas[operation.kind.__name__]
    fields = {field.encode_name: known["properties"][field.encode_name] for field in operation.fields}
    required = [field.encode_name for field in operation.fields if field.required]
    found: dict[str, Any] = {
        "operationId": f"{operation.method.lower()}_{operation.kind.__struct_config__.tag}",
        "summary": operation.summary,
        "parameters": [_in_path(name) for name in operation.names],
        "responses": {
            "200": _reply(operation),
            "default": {
                "description": "The request was refused.",
                "content": {CONTENT_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
            },
        },
    }
    if operation.kind is Publish:
        found["responses"]["207"] = _reply(operation)
    if operation.is_query:
        found["parameters"] += [
            {"name": name, "in": "query", "required": name in required, "schema": schema}
            for name, schema in fields.items()
        ]
    else:
        body = {"type": "object", "properties": fields, "required": required, "additionalProperties": False}
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    if operation.kind is Fetch:
        found["parameters"].append(
            {
                "name": "Last-Event-ID",
                "in": "header",
                "required": False,
                "description": "Offset of the last event that was received; the stream goes on after it.",
                "schema": {"type": "integer", "minimum": 0, "maximum": MAX_EVENT_ID},
            }
        )
    return found


def _in_path(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "minLength": 1}
    if name == "partition":
        schema = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _reply(operation: Operation) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name=operation.reply_type.__name__)}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if operation.kind is Fetch:
        content[_EVENTS] = {"schema": {"type": "string"}}
    return {"description": operation.summary, "content": content}


def _problem_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "RFC 9457. `code` and `retriable` are those of the wire protocol.",
        "properties": {
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string"},
            "retriable": {"type": "boolean"},
            "retry_after_ms": {"type": "integer"},
        },
        "required": ["title", "status", "detail"],
    }
