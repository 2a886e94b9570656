"""The OpenAPI 3.1 document of the service: every address, answer and status.

What requests may hold comes from the very models that check them.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from image_pipeline.ingest.presigning import TYPES
from image_pipeline.intake.capability import MAX_LENGTH
from image_pipeline.intake.events import MOST_IDS
from image_pipeline.intake.requests import FileAsked, PartsAsked, UploadsAsked
from image_pipeline.settings import Settings

Schema = dict[str, Any]

#: The version of the API. The first number changes when a client has to.
VERSION = "1.0.0"

_ERRORS = {
    400: "The body is not JSON, or broke off.",
    401: "There is no key, or nobody has it.",
    403: "The key is not for this source, or the permission ran out.",
    404: "There is no such thing.",
    408: "The request took too long to arrive.",
    409: "It is too late for that, or too early: parts are missing.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    422: "A field or parameter is wrong; `field` names it. Of too many files, none is allowed.",
    429: "Too many requests.",
    500: "The service failed; its log says why.",
    503: "Catalog or bucket do not answer.",
}

#: What every limited address may answer.
_ALWAYS = (401, 422, 429, 500, 503)
_WITH_BODY = (400, 408, 413, 415)


def document(settings: Settings) -> Schema:
    """The document for these settings: a key is asked for where no source does without."""
    free = [name for name, one in settings.intake.sources.items() if one.anonymous]
    keyed: list[Schema] = [{"key": []}]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Intake",
            "version": VERSION,
            "description": "Permissions to upload pictures straight to a bucket, and what became"
            " of them. Bytes of pictures never pass through this service.",
        },
        "paths": _paths([*keyed, {}] if free else keyed, keyed),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(max(one.files for one in settings.intake.sources.values())),
            "responses": _error_responses(),
        },
    }


def _paths(open_to: list[Schema], keyed: list[Schema]) -> Schema:
    """``open_to`` is who may ask of a source; who has the id of an upload needs no key."""
    nobody: list[Schema] = []
    upload, events = _upload_paths(nobody), _event_paths(nobody)
    return {
        "/uploads": {
            "post": {
                **_operation("grant", "Ask to upload files to a source.", open_to),
                "requestBody": _body("UploadsAsked"),
                "responses": {
                    "200": {
                        **_json("Permission, or what is wrong, for each file in its order.",
                                "Granted"),
                        "links": _LINKS,
                    },
                    **_refused(403, 404, *_WITH_BODY),
                },
            }
        },
        **upload,
        **events,
        "/batches/{id}": {
            "parameters": [_text("id", "path", 200)],
            "get": _get("batch", "What became of a batch.", keyed, "Batch", 404),
        },
        "/sources/{source}": {
            "parameters": [_text("source", "path", 31)],
            "get": _get("source", "What a source takes.", open_to, "Source", 403, 404),
        },
        "/status": {
            "parameters": [_text("source", "query", 31)],
            "get": _get(
                "status", "How much waits, of one source or of all the caller may use.", open_to,
                "Status", 403, 404,
            ),
        },
        "/openapi.json": {
            "get": {
                "operationId": "openapi",
                "summary": "This document.",
                "security": nobody,
                "responses": {"200": {"description": "It.", "content": {_JSON: {"schema": {
                    "type": "object"}}}}},
            }
        },
        "/health": {
            "get": {
                "operationId": "health",
                "summary": "That the service runs.",
                "security": nobody,
                "responses": {"200": _json("It does.", "Health")},
            }
        },
    }  # fmt: skip


def _upload_paths(nobody: list[Schema]) -> Schema:
    read = _get("upload", "What became of an upload.", nobody, "Upload", 404)
    abort = _operation("abort", "Give up an upload in parts; its parts are dropped.", nobody)
    parts = _operation("parts", "Where parts go, and which are there. Ask again to resume.", nobody)
    whole = _operation("complete", "Make the file of its parts. Can be repeated.", nobody)
    return {
        "/uploads/{id}": {
            "parameters": [_ID],
            "get": read,
            "delete": {
                **abort,
                "responses": {
                    "204": {"description": "Nothing of it is left."}, **_refused(404, 409),
                },
            },
        },
        "/uploads/{id}/parts": {
            "parameters": [_ID],
            "post": {
                **parts,
                "requestBody": _body("PartsAsked"),
                "responses": {
                    "200": _json("Addresses to PUT to, each for exactly its bytes.", "Parts"),
                    **_refused(403, 404, 409, *_WITH_BODY),
                },
            },
        },
        "/uploads/{id}/complete": {
            "parameters": [_ID],
            "post": {
                **whole,
                "responses": {"200": _json("The file is whole.", "Completed"),
                              **_refused(404, 409)},
            },
        },
    }  # fmt: skip


def _event_paths(nobody: list[Schema]) -> Schema:
    stream = {
        "description": "Events named `state`; the data of each is an `Upload` as JSON. It ends"
        " when all of them are published or rejected.",
        "content": {"text/event-stream": {"schema": _ref("Event")}},
    }
    ids = {
        "name": "ids",
        "in": "query",
        "required": True,
        "explode": False,
        "schema": {
            "type": "array", "items": _ID["schema"], "minItems": 1, "maxItems": MOST_IDS,
        },
    }  # fmt: skip
    return {
        "/uploads/{id}/events": {
            "parameters": [_ID],
            "get": {
                **_operation("events", "Be told what becomes of an upload.", nobody),
                "responses": {"200": stream, **_refused(404)},
            },
        },
        "/uploads/events": {
            "parameters": [ids],
            "get": {
                **_operation("eventsOfMany", "Be told what becomes of uploads.", nobody),
                "responses": {"200": stream, **_refused(404)},
            },
        },
    }


_JSON = "application/json"

_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "As POST /uploads gave it. Whoever has it may finish the upload.",
    "schema": {
        "type": "string", "minLength": 1, "maxLength": MAX_LENGTH, "pattern": "^[A-Za-z0-9_-]+$",
    },
}  # fmt: skip

_LINKS = {
    name: {"operationId": name, "parameters": {"id": "$response.body#/files/0/id"}}
    for name in ("upload", "parts", "complete", "abort", "events")
}


def _operation(name: str, summary: str, security: list[Schema]) -> Schema:
    return {"operationId": name, "summary": summary, "security": security}


def _get(name: str, summary: str, security: list[Schema], schema: str, *errors: int) -> Schema:
    responses = {"200": _json(summary, schema), **_refused(*errors)}
    return {**_operation(name, summary, security), "responses": responses}


def _json(description: str, schema: str) -> Schema:
    return {"description": description, "content": {_JSON: {"schema": _ref(schema)}}}


def _body(schema: str) -> Schema:
    return {"required": True, "content": {_JSON: {"schema": _ref(schema)}}}


def _ref(schema: str) -> Schema:
    return {"$ref": f"#/components/schemas/{schema}"}


def _refused(*statuses: int) -> Schema:
    every = sorted({*statuses, *_ALWAYS})
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in every}


def _error_responses() -> Schema:
    responses: Schema = {
        str(status): _json(description, "Error") for status, description in _ERRORS.items()
    }
    after = {
        "Retry-After": {
            "description": "Seconds to wait.",
            "required": True,
            "schema": {"type": "integer", "minimum": 1},
        }
    }
    for status in (429, 503):
        responses[str(status)]["headers"] = after
    return responses


def _text(name: str, where: str, longest: int) -> Schema:
    schema = {"type": "string", "minLength": 1, "maxLength": longest}
    return {"name": name, "in": where, "required": where == "path", "schema": schema}


def _asked(model: type[BaseModel]) -> Schema:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return schema


def _object(description: str, /, **properties: Any) -> Schema:
    """Every property is there; nothing else is."""
    return {
        "type": "object",
        "description": description,
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }


def _number(minimum: int = 0) -> Schema:
    return {"type": "integer", "minimum": minimum}


def _maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_TEXT: Schema = {"type": "string"}
_URL: Schema = {"type": "string", "format": "uri"}
_MOMENT: Schema = {"type": "string", "format": "date-time"}
_STATE: Schema = {"type": "string", "enum": ["waiting", "processing", "published", "rejected"]}
_COUNTS: Schema = {"type": "object", "additionalProperties": _number()}


def _schemas(files: int) -> Schema:
    """``files`` is the most that any source takes in a request."""
    models = (FileAsked, UploadsAsked, PartsAsked)
    schemas = {
        **{model.__name__: _asked(model) for model in models},
        **_granting(),
        **_sending(),
        **_telling(),
        "Health": _object("The process answers.", status={"const": "ok"}),
        "Error": _object(
            "Why not, and what to do.",
            error={
                "type": "object",
                "required": ["code", "message"],
                "properties": {"code": _TEXT, "message": _TEXT},
            },
        ),
    }
    schemas["UploadsAsked"]["properties"]["files"]["maxItems"] = files
    return schemas


def _granting() -> Schema:
    common = {"id": _ID["schema"], "name": _TEXT, "key": _TEXT, "expires_at": _MOMENT}
    fields = {"type": "object", "additionalProperties": _TEXT}
    wrong = _object(
        "What is wrong with the file.",
        code={"type": "string", "enum": ["name", "empty", "too_large", "type"]},
        message=_TEXT,
    )
    return {
        "GrantedWhole": _object(
            "POST the fields as multipart/form-data, then the file as the field `file`.",
            **common,
            post=_object("Where to, and with what.", url=_URL, fields=fields),
        ),
        "GrantedInParts": _object(
            "Ask where parts go, PUT them, then complete the upload.",
            **common,
            multipart=_object(
                "All parts but the last have `part_size` bytes.",
                part_size=_number(1),
                parts=_number(1),
            ),
        ),
        "RefusedFile": _object("A file that is not taken.", name=_TEXT, error=wrong),
        "Granted": _object(
            "One answer for each file.",
            files={
                "type": "array",
                "minItems": 1,
                "items": {
                    "oneOf": [_ref("GrantedWhole"), _ref("GrantedInParts"), _ref("RefusedFile")]
                },
            },
        ),
        "Source": _object(
            "What a request may ask of a source.",
            source=_TEXT,
            anonymous={"type": "boolean"},
            files=_number(1),
            bytes=_number(1),
            types={"type": "array", "minItems": 1, "items": {"enum": list(TYPES)}},
            multipart_bytes=_number(1),
            minutes={"type": "number", "exclusiveMinimum": 0},
        ),
    }


def _sending() -> Schema:
    part = _object("Where a part goes.", number=_number(1), url=_URL)
    there = _object("A part that is there.", number=_number(1), size=_number(), etag=_TEXT)
    return {
        "Parts": _object(
            "Addresses of the parts asked for; all parts that the bucket has.",
            parts={"type": "array", "items": part},
            done={"type": "array", "items": there},
        ),
        "Completed": _object("It waits to be processed.", state={"const": "waiting"}),
    }


def _telling() -> Schema:
    picture = _object(
        "What a <picture> element needs, as the image's manifest has it.",
        src=_maybe(_URL),
        srcset={"type": "object", "additionalProperties": _TEXT},
        sizes=_TEXT,
        width=_number(1),
        height=_number(1),
        dominant_color=_TEXT,
        placeholder=_TEXT,
        thumbhash=_maybe(_TEXT),
        html=_TEXT,
    )
    return {
        "Upload": _object(
            "What became of an upload.",
            id=_ID["schema"],
            state=_STATE,
            received={"type": "boolean", "description": "Whether the bucket has the file."},
            batch=_maybe(_TEXT),
            manifest=_maybe(_URL),
            picture=_maybe(picture),
            reason=_maybe(_TEXT),
            message=_maybe(_TEXT),
        ),
        "Event": _object(
            "An event of a stream.",
            event={"const": "state"},
            data={
                "type": "string",
                "contentMediaType": _JSON,
                "contentSchema": _ref("Upload"),
            },
        ),
        "Batch": _object(
            "What became of a batch: its uploads by verdict, and rejections by reason.",
            id=_TEXT,
            source=_TEXT,
            state=_STATE,
            created_at=_MOMENT,
            finished_at=_maybe(_MOMENT),
            uploads=_number(),
            bytes=_number(),
            verdicts=_COUNTS,
            reasons=_COUNTS,
            manifest=_maybe(_URL),
        ),
        "Status": _object(
            "How much waits. Throughput is that of the last ten minutes.",
            sources={"type": "array", "items": _TEXT},
            queue_depth=_number(),
            waiting=_number(),
            processing=_number(),
            oldest_waiting_seconds=_maybe({"type": "number", "minimum": 0}),
            throughput_per_minute={"type": "number", "minimum": 0},
        ),
    }
