"""What the service counts about itself, in the text format of Prometheus."""

import time

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omiad.serving.batching import Places

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one service, and of its process.

    Attributes:
        photographs: Photographs that were answered, by their decision.
        batches: Photographs that were scored together.
    """

    def __init__(self, places: Places) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.photographs = Counter(
            "omiad_photographs", "Photographs answered.", ["decision"], registry=registry
        )
        self.batches = Histogram(
            "omiad_batch_photographs",
            "Photographs scored together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self._requests = Counter(
            "omiad_requests", "Requests to /predict.", ["status"], registry=registry
        )
        self._seconds = Histogram(
            "omiad_request_seconds",
            "Seconds from the first byte of a request to /predict to the end of its answer.",
            buckets=_SECONDS,
            registry=registry,
        )
        waiting = Gauge(
            "omiad_photographs_in_progress",
            "Photographs between the door and their answer.",
            registry=registry,
        )
        waiting.set_function(lambda: places.taken)

    def text(self) -> bytes:
        """Return all figures in the text format."""
        return generate_latest(self._registry)

    def watched(self, app: ASGIApp) -> ASGIApp:
        """Return an application whose requests to /predict are counted and timed."""

        async def watch(scope: Scope, receive: Receive, send: Send) -> None:
            if scope.get("path") != "/predict":
                return await app(scope, receive, send)
            start, status = time.perf_counter(), 500

            async def sent(message: Message) -> None:
                nonlocal status
                status = message.get("status", status)
                await send(message)

            try:
                await app(scope, receive, sent)
            finally:
                self._requests.labels(status).inc()
                self._seconds.observe(time.perf_counter() - start)

        return watch
