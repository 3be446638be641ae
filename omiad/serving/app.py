"""The application: its routes, and what becomes of one request."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, File, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp

from omiad.errors import InputError
from omiad.names import one_line
from omiad.predictor import Predictor
from omiad.serving.answers import Answer, Answers, Health, Refusal, answer_of
from omiad.serving.batching import Batcher, ModelFailure, Places
from omiad.serving.door import Door, no_place, refusal
from omiad.serving.metrics import Metrics
from omiad.serving.page import service_page
from omiad.serving.photographs import Studio, map_picture
from omiad.version import __version__

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal} for status in (401, 413, 422, 429, 500)
}


class Desk:
    """Answers the photographs of requests.

    Args:
        studio: Reads photographs and draws pictures.
        batcher: Scores them.
        metrics: Counts them.
        num_workers: Threads that read and draw.
    """

    def __init__(
        self, studio: Studio, batcher: Batcher, metrics: Metrics, *, num_workers: int
    ) -> None:
        self._studio, self._batcher, self._metrics = studio, batcher, metrics
        self._pool = ThreadPoolExecutor(num_workers, "read")

    async def answers(
        self, photographs: Sequence[UploadFile], *, has_map: bool, has_overlay: bool, side: int
    ) -> Answers:
        """Answer all photographs of a request."""
        waiting = (self._answer(each, has_map, has_overlay, side) for each in photographs)
        return Answers(photographs=await asyncio.gather(*waiting))

    async def _answer(
        self, photograph: UploadFile, has_map: bool, has_overlay: bool, side: int
    ) -> Answer:
        given = photograph.filename or "photograph"
        name, content = f"'{one_line(given)}'", await photograph.read()
        work = asyncio.get_running_loop().run_in_executor
        try:
            pixels, size = await work(self._pool, self._studio.read, content, name)
            found = await asyncio.wrap_future(self._batcher.submit(pixels, size))
        except InputError as error:
            answer = Answer(name=given, decision="unreadable", error=str(error))
        else:
            answer = answer_of(given, found)
            if has_map:
                answer.map = await work(self._pool, map_picture, found)
            if has_overlay:
                draw = self._studio.overlay
                answer.overlay = await work(self._pool, draw, content, name, found, side)
        self._metrics.photographs.labels(answer.decision).inc()
        return answer

    def close(self) -> None:
        """End all threads, once what was sent is answered."""
        self._pool.shutdown()
        self._batcher.close()


def application(
    predictor: Predictor,
    *,
    category: str | None = None,
    false_alarms: float | None = None,
    token: str | None = None,
    hosts: Sequence[str] = ("*",),
    max_megabytes: float = 64,
    max_megapixels: float = 64,
    max_waiting: int = 64,
    batch_size: int = 8,
    num_workers: int = 2,
) -> ASGIApp:
    """Return the service of a model as an application of ASGI; for the arguments see `serve`.

    `hosts` are the names by which the service may be called.
    """
    places = Places(max_waiting)
    metrics = Metrics(places)
    batcher = Batcher(
        predictor,
        batch_size=batch_size,
        category=category,
        false_alarms=false_alarms,
        watch=metrics.batches.observe,
    )
    studio = Studio.of(predictor, max_megapixels)
    desk = Desk(studio, batcher, metrics, num_workers=num_workers)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPIOffline(
        redoc_url=None,
        title="omiad",
        version=__version__,
        description="Photographs to decisions: is a part ok, or where is its defect?",
        lifespan=lifespan,
    )
    _add_routes(app, desk, metrics, places, predictor.products.names)
    app.get("/", include_in_schema=False, response_class=HTMLResponse)(
        _constant(service_page(predictor, is_guarded=token is not None))
    )
    _add_refusals(app)
    app.add_middleware(Door, places=places, token=token, max_bytes=max_megabytes * 1e6)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return metrics.watched(app)


def _add_routes(
    app: FastAPI, desk: Desk, metrics: Metrics, places: Places, products: list[str]
) -> None:
    @app.post("/predict", responses=_REFUSALS, response_model=Answers)
    async def predict(
        photographs: Annotated[list[UploadFile], File(description="One photograph or several.")],
        map: Annotated[  # noqa: A002  the name of the parameter
            bool, Query(description="Send the anomaly maps.")
        ] = False,
        overlay: Annotated[bool, Query(description="Send maps over the photographs.")] = False,
        side: Annotated[
            int, Query(ge=0, le=65_535, description="Longer side of overlays; 0: the photograph's.")
        ] = 1024,
    ) -> Answers | JSONResponse:
        """Decide about photographs; one that cannot be read is "unreadable" and says why."""
        more = len(photographs) - 1  # the door has given a place to the first one
        if more >= places.most:
            return refusal(
                413, f"A request may have at most {places.most} photographs. Send several requests."
            )
        if not places.take(more):
            return no_place()
        try:
            return await desk.answers(photographs, has_map=map, has_overlay=overlay, side=side)
        finally:
            places.free(more)

    @app.get("/health")
    async def health() -> Health:
        """Say that the service answers, and which products it knows."""
        return Health(
            status="ok",
            version=__version__,
            products=products,
            photographs_in_progress=places.taken,
        )

    @app.get("/metrics", response_class=Response)
    async def figures() -> Response:
        """Return what the service counts, for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _add_refusals(app: FastAPI) -> None:
    """Make one sentence of everything that goes wrong."""

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = one_line(" ".join(map(str, first["loc"])))
        return refusal(
            422,
            f"The request cannot be read ({where}: {one_line(str(first['msg']))}). Send files as "
            f"multipart/form-data in the field 'photographs', as /docs shows.",
        )

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return refusal(error.status_code, one_line(str(error.detail)), **(error.headers or {}))

    @app.exception_handler(ModelFailure)
    async def failed(_: Request, error: ModelFailure) -> JSONResponse:
        return refusal(500, f"The model failed ({error}). The log of the service says why.")


def _constant(text: str) -> Any:
    async def page() -> HTMLResponse:
        return HTMLResponse(text)

    return page
