"""`omiad serve`: a model behind a port."""

import errno
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

from omiad.detector import Detector
from omiad.devices import pick_device
from omiad.errors import InputError
from omiad.runtimes import device_for

logger = logging.getLogger(__name__)

_PACKAGES = ("fastapi", "fastapi_offline", "multipart", "prometheus_client", "uvicorn")
"""Modules that the extra `serve` brings."""

_LOOPBACK = ("127.0.0.1", "localhost")


def serve(
    model: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: str | None = None,
    category: str | None = None,
    false_alarms: float | None = None,
    max_megabytes: float = 64,
    max_megapixels: float = 64,
    max_waiting: int = 64,
    batch_size: int = 8,
    num_workers: int = 2,
    device: str = "auto",
    trust: str | None = None,
) -> None:
    """Answer requests with decisions about photographs, until Ctrl-C or SIGTERM.

    POST /predict takes photographs; / is a page to drop photographs on, /docs explains every
    request, /health and /metrics are for machines. Needs `pip install 'omiad[serve]'`.

    Args:
        model: Checkpoint with thresholds, as `omiad train` writes it, or a file that was exported
            from it.
        host: Address to answer at; 127.0.0.1 is reached from this machine only, 0.0.0.0 from all.
        port: Port to answer at; 0 takes a free one.
        token_file: File whose first line every request must show, as `Authorization: Bearer TOKEN`.
        category: The product that all photographs show; by default it is recognised.
        false_alarms: Share of normal photographs that may be called defective; by default the rate
            that the model was calibrated for.
        max_megabytes: Most bytes of a request, in MB of 10**6 bytes.
        max_megapixels: Most pixels of a photograph, in millions.
        max_waiting: Most photographs that are in progress or wait; a request beyond gets status
            429.
        batch_size: Most waiting photographs that are scored at once; it changes no score.
        num_workers: Threads that read photographs and draw overlays.
        device: cpu, cuda, cuda:1, mps, or auto for a GPU if there is one.
        trust: Class path of a network of your own that the checkpoint names; it is imported.

    Raises:
        InputError: If the extra is missing, the port is in use, an option is out of range, or the
            model has no thresholds.
    """
    _check_installed()
    limits = {
        "max_megabytes": max_megabytes,
        "max_megapixels": max_megapixels,
        "max_waiting": max_waiting,
        "batch_size": batch_size,
        "num_workers": num_workers,
    }
    for name, value in limits.items():
        if not value > 0:
            raise InputError(f"--{name} must be above 0, but got {value:g}.")
    token = None if token_file is None else _token(Path(token_file))
    from omiad.serving.app import application  # noqa: PLC0415  needs the extra

    with closing(_bound(host, port)) as door:
        predictor = Detector.load(model, device=pick_device(device_for(model, device)), trust=trust)
        if not predictor.products.names:
            raise InputError(
                f"The model has no thresholds, so it cannot decide. `omiad calibrate {model} "
                f"PHOTOS` learns them from photographs of good parts."
            )
        predictor.judge(category, false_alarms)
        is_open = not _is_loopback(host)
        app = application(
            predictor,
            category=category,
            false_alarms=false_alarms,
            token=token,
            # Without a token, another site's page in this machine's browser could ask by a name of
            # its own that leads to this address.
            hosts=("*",) if is_open or token else _LOOPBACK,
            max_megabytes=max_megabytes,
            max_megapixels=max_megapixels,
            max_waiting=max_waiting,
            batch_size=batch_size,
            num_workers=num_workers,
        )
        if is_open and token is None:
            logger.warning("Whoever reaches %s can use the service. Give --token_file.", host)
        _run(app, door, f"http://{host}:{door.getsockname()[1]}/")


def _run(app: object, door: socket.socket, address: str) -> None:
    """Answer until a signal; requests under way are answered first."""
    import uvicorn  # noqa: PLC0415  needs the extra

    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=30,
    )
    logger.info("answering at %s", address)
    with _stopping_is_no_error():
        uvicorn.Server(config).run([door])
    logger.info("stopped")


@contextmanager
def _stopping_is_no_error() -> Iterator[None]:
    """Let SIGTERM end a service as an ordinary end: uvicorn raises its signal once more."""
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_installed() -> None:
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(
            f"`omiad serve` needs {', '.join(missing)}. Run `pip install 'omiad[serve]'`."
        )


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--token_file '{path}' cannot be read ({error}).") from error
    if not token:
        raise InputError(f"The first line of --token_file '{path}' is empty. Write a token there.")
    return token


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens, so that a port in use is known before a model is loaded."""
    if not 0 <= port <= 65_535:
        raise InputError(f"--port must lie in 0..65535, but got {port}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"Port {port} of {host} is in use. Stop the other program, or give another --port."
            ) from error
        raise InputError(
            f"No service can answer at {host}, port {port} ({error.strerror}). Give another --host "
            f"or --port."
        ) from error
