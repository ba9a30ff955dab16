"""The OpenAPI description of schedule-api."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

Schema = dict[str, Any]

NUMBER: Schema = {"type": "integer", "format": "int64"}
TEXT: Schema = {"type": "string"}
FREE: Schema = {"type": "object", "additionalProperties": True}
IDS: Schema = {"type": "array", "items": NUMBER}
TASK_STATUSES = ["pending", "running", "paused", "completed", "failed", "skipped", "cancelled"]


def document() -> Schema:
    """Return the whole description; the server's address is relative to where it is read."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pgfleet schedule-api",
            "version": version("pgfleet"),
            "description": "Schedules as tasks, with the access token of a signed-in user.",
        },
        "servers": [{"url": "./api/schedule"}],
        "security": [{"token": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            },
            "parameters": {
                "id": {"name": "id", "in": "path", "required": True, "schema": NUMBER},
                "limit": _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}),
                "offset": _query("offset", {"type": "integer", "minimum": 0}),
            },
            "schemas": _schemas(),
            "responses": {"Refused": _answer("It is refused; the body says why.", "Error")},
        },
    }


def _paths() -> Schema:
    rows = {"type": "array", "items": _ref("schemas", "Task")}
    history = {"type": "array", "items": _ref("schemas", "Execution")}
    page = [_ref("parameters", "limit"), _ref("parameters", "offset")]
    one = [_ref("parameters", "id")]
    filters = [
        _query("status", {"type": "string", "enum": TASK_STATUSES}),
        _query("task_type", TEXT),
    ]
    key = {"name": "Idempotency-Key", "in": "header", "schema": TEXT}
    change = {"requestBody": _body("TaskChanges")}
    return {
        "/tasks": {
            "get": _operation("listTasks", "List tasks.", rows, filters + page),
            "post": {
                **_operation("createTask", "Create a task.", "Task", status="201"),
                "requestBody": _body("TaskSpec"),
            },
        },
        "/tasks/{id}": {
            "parameters": one,
            "get": _operation("getTask", "Show a task.", "Task"),
            "put": _operation("replaceTask", "Change what is named.", "Task") | change,
            "patch": _operation("updateTask", "Change what is named.", "Task") | change,
            "delete": _operation("deleteTask", "Delete a task and its history.", "Deleted"),
        },
        "/tasks/{id}/pause": {
            "parameters": one,
            "post": _operation("pauseTask", "Let a task rest.", "Task", [_query("reason", TEXT)]),
        },
        "/tasks/{id}/resume": {
            "parameters": one,
            "post": _operation("resumeTask", "Let a task go on.", "Task"),
        },
        "/tasks/{id}/execute": {
            "parameters": one,
            "post": _operation("executeTask", "Run a task now.", "Execution", [key]),
        },
        "/tasks/{id}/executions": {
            "parameters": one,
            "get": _operation("listExecutions", "Show the history of a task.", history, page),
        },
        "/tasks/{id}/history": {
            "parameters": one,
            "get": _operation("history", "Show the history of a task.", history, page),
        },
        "/stats": {"get": _operation("stats", "Show tasks and executions in numbers.", FREE)},
    }


def _schemas() -> Schema:
    spec: Schema = {
        "task_name": TEXT,
        "task_type": {
            "type": "string",
            "description": "command, software_deployment, file_deployment, or a command type.",
        },
        "scheduled_time": {
            "type": "string",
            "description": "Without an offset it is local to the time zone.",
        },
        "timezone": {"type": "string", "description": "IANA name; UTC by default."},
        "recurrence_type": {
            "type": "string",
            "enum": ["once", "interval", "daily", "weekly", "monthly", "cron", "custom"],
        },
        "recurrence_config": FREE,
        "device_ids": IDS,
        "group_ids": IDS,
        "payload": FREE,
        "command_payload": FREE,
        "software_payload": FREE,
        "file_payload": FREE,
        "policies": FREE,
    }
    changes = {"type": "object", "properties": spec, "additionalProperties": True}
    return {
        "TaskChanges": changes,
        "TaskSpec": {**changes, "required": ["task_name", "task_type"]},
        "Task": _record(
            id=NUMBER,
            task_name=TEXT,
            task_type=TEXT,
            status={"type": "string", "enum": TASK_STATUSES},
            scheduled_time=_or_null(_time()),
            recurrence_type=TEXT,
            recurrence_config=_or_null(FREE),
            device_ids=_or_null(IDS),
            group_ids=_or_null(IDS),
            payload=FREE,
            created_by=_or_null(TEXT),
            created_at=_time(),
            updated_at=_time(),
            last_execution=_or_null(_time()),
            next_execution=_or_null(_time()),
            execution_count=NUMBER,
            last_result={},
            error_message=_or_null(TEXT),
        ),
        "Execution": _record(
            id=NUMBER,
            task_id=NUMBER,
            execution_time=_or_null(_time()),
            completed_time=_or_null(_time()),
            status=TEXT,
            deployment_id=_or_null(NUMBER),
            result={},
            error_message=_or_null(TEXT),
        ),
        "Deleted": _record(id=NUMBER, deleted={"type": "boolean"}),
        "Error": _record(code=TEXT, message=TEXT, details=_or_null(TEXT), hint=_or_null(TEXT)),
    }


def _operation(
    name: str,
    summary: str,
    schema: str | Schema,
    parameters: list[Schema] | None = None,
    status: str = "200",
) -> Schema:
    operation: Schema = {
        "operationId": name,
        "summary": summary,
        "responses": {
            status: _answer("Done.", schema),
            "default": _ref("responses", "Refused"),
        },
    }
    if parameters:
        operation["parameters"] = parameters
    return operation


def _answer(description: str, schema: str | Schema) -> Schema:
    shape = _ref("schemas", schema) if isinstance(schema, str) else schema
    return {"description": description, "content": {"application/json": {"schema": shape}}}


def _body(schema: str) -> Schema:
    return {
        "required": True,
        "content": {"application/json": {"schema": _ref("schemas", schema)}},
    }


def _record(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": True,
    }


def _query(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema}


def _ref(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _time() -> Schema:
    return {"type": "string", "format": "date-time"}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}
