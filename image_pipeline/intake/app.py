"""The service as an ASGI application: ``create_app(settings, bucket, catalog)``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from image_pipeline.catalog.engine import Catalog
from image_pipeline.intake import page, requests
from image_pipeline.intake.errors import HANDLERS, ApiError
from image_pipeline.intake.events import Streams
from image_pipeline.intake.middleware import SafeAnswers
from image_pipeline.intake.openapi import document
from image_pipeline.intake.service import Caller, Service
from image_pipeline.settings import Settings
from image_pipeline.store.bucket import Bucket

#: Files that are signed in the event loop itself, at a quarter of a millisecond each; of more,
#: others would notice, so they go to a thread.
_SIGNED_AT_ONCE = 8

Handler = Callable[[Request, Caller], Awaitable[Response]]


def create_app(
    settings: Settings,
    bucket: Bucket,
    catalog: Catalog,
    clock: Callable[[], datetime] | None = None,
) -> Starlette:
    """The service for the sources of ``settings.intake``.

    Reads the catalog once, for the secret that ids are signed with. Raises ``SettingsError``
    where a source takes types that nobody decodes.
    """
    service = Service(settings, bucket, catalog, clock or settings.now)
    streams = Streams(service)
    api = _Api(service, streams)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await streams.close()
            service.close()

    app = Starlette(
        routes=[*api.routes(), *_page_routes(settings, bucket)],
        middleware=[
            Middleware(SafeAnswers),
            Middleware(
                CORSMiddleware,
                allow_origins=settings.intake.origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["Authorization", "Content-Type"],
                expose_headers=["Retry-After"],
                max_age=7200,
            ),
        ],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
    # Whoever serves it ends them before it waits for connections to end.
    app.state.streams = streams
    return app


def _page_routes(settings: Settings, bucket: Bucket) -> list[Route]:
    return page.routes(
        page.upload_origin(bucket),
        sorted(settings.intake.sources),
        page.picture_origins_of(settings, bucket),
    )


class _Api:
    """The addresses of the service and what they do."""

    def __init__(self, service: Service, streams: Streams) -> None:
        self.service = service
        self.streams = streams
        self.document = document(service.settings)

    def routes(self) -> list[Route]:
        """Every address but those of the page."""
        return [
            Route("/uploads", self._limited(self.grant), methods=["POST"]),
            Route("/uploads/events", self._limited(self.events_of_many, "ids"), methods=["GET"]),
            Route("/uploads/{id}", self._limited(self.upload), methods=["GET", "DELETE"]),
            Route("/uploads/{id}/events", self._limited(self.events), methods=["GET"]),
            Route("/uploads/{id}/parts", self._limited(self.parts), methods=["POST"]),
            Route("/uploads/{id}/complete", self._limited(self.complete), methods=["POST"]),
            Route("/batches/{id}", self._limited(self.batch), methods=["GET"]),
            Route("/sources/{source}", self._limited(self.source), methods=["GET"]),
            Route("/status", self._limited(self.status, "source"), methods=["GET"]),
            Route("/openapi.json", self.openapi, methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
        ]

    def _limited(self, handler: Handler, *query: str) -> Callable[[Request], Awaitable[Response]]:
        """The handler for whoever still has a token; ``query`` are its parameters."""

        async def serve(request: Request) -> Response:
            caller = self.service.caller(request)
            requests.check_query(request, *query)
            return await handler(request, caller)

        return serve

    async def grant(self, request: Request, caller: Caller) -> Response:
        """``POST /uploads``."""
        asked = await requests.read(request, requests.UploadsAsked)
        limits = self.service.admit(caller, asked.source)
        if len(asked.files) > limits.files:
            raise ApiError(
                422,
                "too_many_files",
                f"{len(asked.files)} files: name {limits.files} at most in a request",
                more={"files": limits.files},
            )

        def sign() -> list[object]:
            return [self.service.grant(asked.source, limits, file) for file in asked.files]

        at_once = len(asked.files) <= _SIGNED_AT_ONCE
        files = sign() if at_once else await self.service.threads.run(sign)
        return JSONResponse({"files": files})

    async def upload(self, request: Request, caller: Caller) -> Response:
        """``GET`` and ``DELETE /uploads/{id}``."""
        upload = request.path_params["id"]
        if request.method == "DELETE":
            return await self.abort(upload)
        wanted = {upload: self.service.open(upload)}
        read = partial(self.service.reader.uploads, wanted, look=[upload])
        return JSONResponse((await self.service.threads.run(read))[upload])

    async def abort(self, upload: str) -> Response:
        """``DELETE /uploads/{id}``."""
        parts = self.service.parts_of(upload, ending=True)
        await self.service.threads.run(parts.abort)
        return Response(status_code=204)

    async def parts(self, request: Request, caller: Caller) -> Response:
        """``POST /uploads/{id}/parts``."""
        parts = self.service.parts_of(request.path_params["id"])
        asked = await requests.read(request, requests.PartsAsked)
        urls = partial(parts.urls, asked.numbers)
        return JSONResponse(await self.service.threads.run(urls))

    async def complete(self, request: Request, caller: Caller) -> Response:
        """``POST /uploads/{id}/complete``. A body is not read."""
        parts = self.service.parts_of(request.path_params["id"], ending=True)
        await self.service.threads.run(parts.complete)
        return JSONResponse({"state": "waiting"})

    async def events(self, request: Request, caller: Caller) -> Response:
        """``GET /uploads/{id}/events``."""
        upload = request.path_params["id"]
        return self.streams.answer({upload: self.service.open(upload)}, caller.bucket)

    async def events_of_many(self, request: Request, caller: Caller) -> Response:
        """``GET /uploads/events?ids=a,b``."""
        ids = [one for one in request.query_params.get("ids", "").split(",") if one]
        return self.streams.answer({one: self.service.open(one) for one in ids}, caller.bucket)

    async def batch(self, request: Request, caller: Caller) -> Response:
        """``GET /batches/{id}``."""
        self.service.require_key(caller)
        reader = self.service.reader
        batch = await self.service.threads.run(partial(reader.batch, request.path_params["id"]))
        # Whether another source has such a batch is nobody's business.
        if batch is None or batch.source not in caller.sources:
            raise ApiError(404, "batch", "there is no such batch in a source of this key")
        return JSONResponse(reader.batch_answer(batch))

    async def source(self, request: Request, caller: Caller) -> Response:
        """``GET /sources/{source}``."""
        name = request.path_params["source"]
        limits = self.service.admit(caller, name)
        return JSONResponse(
            {
                "source": name,
                "anonymous": name in self.service.anonymous,
                "files": limits.files,
                "bytes": limits.bytes,
                "types": list(limits.types),
                "multipart_bytes": limits.multipart_bytes,
                "minutes": limits.minutes,
            }
        )

    async def status(self, request: Request, caller: Caller) -> Response:
        """``GET /status``: of one source, or of all that the caller may use."""
        source = request.query_params.get("source")
        if source is not None:
            self.service.admit(caller, source)
        elif not caller.sources:
            self.service.require_key(caller)
        sources = [source] if source is not None else sorted(caller.sources)
        read = partial(self.service.reader.queue, sources)
        return JSONResponse(await self.service.threads.run(read))

    async def openapi(self, request: Request) -> Response:
        """``GET /openapi.json``."""
        return JSONResponse(self.document)

    async def health(self, request: Request) -> Response:
        """``GET /health``: that the process answers; nothing else is asked."""
        return JSONResponse({"status": "ok"})
