"""The routes: what can be asked, by whom, and what the description says of it."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated

from fastapi import Depends, FastAPI, Query, Request
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from samaf import __version__
from samaf.serve import metrics
from samaf.serve.access import Guard, may_read, may_write
from samaf.serve.engine import Engine
from samaf.serve.front import Front, page_policy
from samaf.serve.options import Options
from samaf.serve.problems import add_handlers
from samaf.serve.schemas import ANSWER, OUTCOME, PAGE, PATHS, PROBLEMS, STATS, TRACK, UPLOAD, answers
from samaf.serve.service import SearchOptions, Service, as_json

_LONGEST_PAGE = 1000


def create_app(options: Options, engine: Engine, worker: int = 0) -> ASGIApp:
    """The application of a worker, from its outermost layer on."""
    app = FastAPI(
        title="samaf",
        version=__version__,
        description="Audio fingerprinting: name the track, the place and the confidence for any clip.",
        docs_url=None,
        redoc_url=None,
        responses=PROBLEMS,
    )
    app.state.options = options
    service = Service(options, engine, worker)
    add_handlers(app)
    _add_pages(app)
    _add_health(app, service)
    _add_searching(app, service)
    _add_tracks(app, service)
    guarded: ASGIApp = app
    if options.origins:
        guarded = CORSMiddleware(
            app,
            allow_origins=options.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After"],
        )
    return Front(Guard(guarded, options), worker)


Reader = Annotated[str, Depends(may_read)]
Editor = Annotated[str, Depends(may_write)]


def _add_pages(app: FastAPI) -> None:
    """`/`, the page; `/docs`, which shows `/openapi.json`."""
    for route, name in (("/", "page.html"), ("/docs", "docs.html")):
        text = files("samaf.serve").joinpath(name).read_text("utf-8")
        headers = {"Content-Security-Policy": page_policy(text), "Permissions-Policy": "microphone=(self)"}
        response = Response(text, media_type="text/html", headers=headers)

        async def page(request: Request, response: Response = response) -> Response:
            return response

        app.add_route(route, page, include_in_schema=False)


def _add_health(app: FastAPI, service: Service) -> None:
    """Whether the service is alive, and whether it can answer; what Prometheus asks for."""

    @app.get("/healthz", summary="Is the process alive?", responses=answers(STATS, "It is."))
    async def healthz() -> Response:
        return as_json({"status": "alive"})

    @app.get(
        "/readyz",
        summary="Can it answer?",
        responses=answers(STATS, "The index is open, the kernels are warm."),
    )
    async def readyz() -> Response:
        _ = service.engine.library
        return as_json({"status": "ready"})

    @app.get("/metrics", summary="For Prometheus", responses={200: {"content": {"text/plain": {}}}})
    async def measured(caller: Reader) -> Response:
        engine = service.engine
        stats = await engine.run(engine.library.index.stats) if engine.is_ready else None
        text = await engine.run(lambda: metrics.exposition(stats, service.slots.n_taken))
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_searching(app: FastAPI, service: Service) -> None:
    """Searching, by audio and by fingerprint."""
    known = {"responses": answers(ANSWER, "The matches, best first; none: unknown."), "openapi_extra": UPLOAD}

    @app.post("/v1/search", summary="Name a clip", **known)  # type: ignore[arg-type]
    async def search(
        request: Request, options: Annotated[SearchOptions, Query()], caller: Reader
    ) -> Response:
        return await service.search(request, options, caller, is_print=False)

    @app.post("/v1/search/fingerprint", summary="Name the clip of a fingerprint", **known)  # type: ignore[arg-type]
    async def search_print(
        request: Request, options: Annotated[SearchOptions, Query()], caller: Reader
    ) -> Response:
        return await service.search(request, options, caller, is_print=True)


def _add_tracks(app: FastAPI, service: Service) -> None:
    """The library: what is in it, and changes of it."""

    @app.get(
        "/v1/stats",
        summary="Measures of the index",
        responses=answers(STATS, "As `samaf index stats` has them."),
    )
    async def stats(request: Request, caller: Reader) -> Response:
        index = service.engine.library.index
        told = await service.engine.run(index.stats)
        bounds = service.options.bounds
        taken = {
            "bytes": bounds.n_bytes,
            "clip_s": bounds.clip.longest_s,
            "recording_s": bounds.recording.longest_s,
        }
        rights = {"writable": request.state.writes}  # by this caller
        return as_json({"path": index.path, **told.to_json(), **rights, "bounds": taken})

    @app.get("/v1/tracks", summary="List tracks", responses=answers(PAGE, "A page, in order of their ids."))
    async def tracks(
        caller: Reader,
        after: Annotated[int, Query(ge=0, lt=1 << 63, description="`next` of the page before")] = 0,
        limit: Annotated[int, Query(ge=1, le=_LONGEST_PAGE)] = 100,
        text: Annotated[str, Query(max_length=200, description="words of title, artist or path")] = "",
    ) -> Response:
        with service.slots.taken(service.worker, caller):  # to look for words is to read all of them
            return as_json(await service.engine.run(lambda: service.tracks(after, limit, text), aside=True))

    @app.get("/v1/tracks/{track_id}", summary="One track", responses=answers(TRACK, "The track."))
    async def track(caller: Reader, track_id: int) -> Response:
        found = await service.engine.run(lambda: service.track(track_id))
        return as_json(found.to_json())

    @app.post(
        "/v1/tracks",
        summary="Add a recording, or files of the service's machine",
        status_code=201,
        responses={**answers(OUTCOME, "It is there already."), **answers(OUTCOME, "It is added.", 201)},
        openapi_extra={"requestBody": {"content": {**UPLOAD["requestBody"]["content"], **PATHS}}},
    )
    async def add(
        request: Request,
        caller: Editor,
        name: Annotated[str, Query(max_length=200, description="file name of an upload that has none")] = "",
    ) -> Response:
        _ = service.engine.library
        if request.headers.get("content-type", "").partition(";")[0].strip() == "application/json":
            return await service.add_paths(request, caller)
        return await service.add(request, name, caller)

    @app.delete("/v1/tracks/{track_id}", summary="Remove a track", status_code=204)
    async def remove(caller: Editor, track_id: int) -> Response:
        return await service.remove(track_id, caller)
