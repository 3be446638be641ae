"""The service on loopback, asked by a real client."""

import base64
import io
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client import Client, connected, running
from PIL import Image
from torch import Tensor

from omiad import Detector
from omiad.cli import main
from omiad.errors import InputError, NotFiniteError
from omiad.inspection import Inspection
from omiad.serving import command, serve

pytest.importorskip("fastapi", reason="omiad[serve] is not installed")

from omiad.serving.app import application


@pytest.fixture(scope="module")
def detector(deciding: Path) -> Detector:
    return Detector.load(deciding / "model.ckpt")


@pytest.fixture(scope="module")
def port(detector: Detector) -> Iterator[int]:
    with running(application(detector)) as port:
        yield port


@pytest.fixture
def client(port: int) -> Iterator[Client]:
    client = Client(port)
    with closing(client.connection):
        yield client


def photographs(folder: Path, *names: str) -> list[tuple[str, bytes]]:
    return [(name, (folder / name).read_bytes()) for name in names]


def picture(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_an_answer_is_the_row_of_predict_to_the_last_bit(
    client: Client, detector: Detector, deciding: Path
) -> None:
    names = ["photo.png", "hole.png"]
    status, said = client.post(photographs(deciding, *names))
    assert status == 200
    found = detector.predict([deciding / name for name in names])
    for answer, result in zip(said["photographs"], found, strict=True):
        assert answer["score"] == result.score
        assert answer["p_value"] == result.p_value
        assert result.threshold is not None
        assert answer["threshold"] == result.threshold.image
        assert (answer["decision"], answer["product"]) == (result.decision, result.category)
        boxes = [(r["left"], r["top"], r["right"], r["bottom"]) for r in answer["regions"]]
        assert boxes == [region.box for region in result.regions]
        assert [r["area"] for r in answer["regions"]] == [r.area for r in result.regions]
    assert [answer["decision"] for answer in said["photographs"]] == ["ok", "defect"]
    assert said["photographs"][0]["overlay"] is None


def test_pictures_come_on_request(client: Client, detector: Detector, deciding: Path) -> None:
    status, said = client.post(photographs(deciding, "hole.png"), "?map=true&overlay=true&side=16")
    assert status == 200
    answer, found = said["photographs"][0], detector.predict(deciding / "hole.png")
    assert picture(answer["overlay"]).size == (16, 16)
    levels = np.asarray(picture(answer["map"]["png"])).astype(float)
    low, high = answer["map"]["low"], answer["map"]["high"]
    values = low + levels / 65_535 * (high - low)
    np.testing.assert_allclose(values, found.anomaly_map, atol=(high - low) / 65_535)


def test_a_bad_photograph_is_an_answer_between_good_ones(client: Client, deciding: Path) -> None:
    good, bad = photographs(deciding, "photo.png")[0], ("notes\u001b.txt", b"not an image")
    status, said = client.post([good, bad, ("empty.png", b""), good])
    assert status == 200
    first, second, third, last = said["photographs"]
    assert first == last
    assert second["decision"] == third["decision"] == "unreadable"
    assert "cannot be read as an image" in second["error"]
    assert "\u001b" not in second["error"]


@pytest.mark.parametrize(
    ("path", "body"), [("/predict", b"{}"), ("/predict?side=-1", b"{}"), ("/nothing", b"")]
)
def test_a_request_that_is_no_photograph_gets_one_sentence(
    client: Client, path: str, body: bytes
) -> None:
    client.connection.request("POST", path, body)
    answer = client.connection.getresponse()
    said = json.loads(answer.read())
    assert answer.status == (404 if path == "/nothing" else 422)
    assert [*said] == ["error"]
    if answer.status == 422:
        assert "multipart/form-data" in said["error"]


def test_health_figures_and_pages_are_there(client: Client, deciding: Path) -> None:
    client.post(photographs(deciding, "hole.png"))
    status, health = client.get("/health")
    assert (status, json.loads(health)["products"]) == (200, ["bolt", "nut"])
    status, figures = client.get("/metrics")
    assert 'omiad_photographs_total{decision="defect"}' in figures
    assert 'omiad_requests_total{status="200"}' in figures
    assert "omiad_photographs_in_progress 0.0" in figures
    for path in ("/", "/docs"):
        status, page = client.get(path)
        assert status == 200
        assert "https://" not in page
    assert "/predict" in json.loads(client.get("/openapi.json")[1])["paths"]


def test_a_request_beyond_a_limit_is_refused_and_the_next_one_answered(
    detector: Detector, deciding: Path
) -> None:
    small = photographs(deciding, "photo.png")
    app = application(detector, max_megabytes=0.01, max_megapixels=0.002, max_waiting=3)
    with connected(app) as client:
        client.connection.request("POST", "/predict", b"0" * 11_000)
        answer = client.connection.getresponse()
        assert (answer.status, b"at most 0.01 MB" in answer.read()) == (413, True)
        # A header that says nothing about the length, and a form that is right as far as it goes.
        head = b'--x\r\nContent-Disposition: form-data; name="photographs"; filename="a"\r\n\r\n'
        client.connection.request(
            "POST",
            "/predict",
            iter([head + b"0" * 6000, b"0" * 6000]),
            {"Content-Type": "multipart/form-data; boundary=x"},
            encode_chunked=True,
        )
        answer = client.connection.getresponse()
        assert (answer.status, b"at most 0.01 MB" in answer.read()) == (413, True)
        client.connection.close()
        status, said = client.post(small * 4)
        assert (status, "at most 3 photographs" in said["error"]) == (413, True)
        file = io.BytesIO()
        Image.new("RGB", (50, 50)).save(file, "PNG")
        status, said = client.post([("large.png", file.getvalue())])
        assert "50 x 50 pixels" in said["photographs"][0]["error"]
        assert client.post(small * 3)[0] == 200


def test_a_service_of_this_machine_answers_to_no_other_name(detector: Detector) -> None:
    with connected(application(detector, hosts=("127.0.0.1", "localhost"))) as client:
        assert client.get("/health")[0] == 200
        assert client.get("/health", Host="attacker.example")[0] == 400


def test_a_token_guards_photographs_and_figures(detector: Detector, deciding: Path) -> None:
    small = photographs(deciding, "photo.png")
    with running(application(detector, token="secret")) as port:
        stranger, friend = Client(port), Client(port, token="secret")
        with closing(stranger.connection), closing(friend.connection):
            assert stranger.get("/health")[0] == 200
            assert stranger.get("/metrics")[0] == 401
            status, said = stranger.post(small)
            assert (status, "Authorization" in said["error"]) == (401, True)
            assert stranger.get("/metrics", Authorization="Bearer wröng".encode().decode("latin1"))
            assert friend.post(small)[0] == 200
            assert friend.get("/metrics")[0] == 200


class Slow(Detector):
    """Scores when it is told to, and keeps the size of each batch."""

    def inspect(self, images: Tensor, **options: Any) -> list[Inspection]:
        self.begun.set()
        assert self.may_go.wait(30)
        self.batches.append(len(images))
        return super().inspect(images, **options)


@pytest.fixture
def slow(deciding: Path) -> Slow:
    detector = Slow.load(deciding / "model.ckpt")
    assert isinstance(detector, Slow)
    detector.begun, detector.may_go = threading.Event(), threading.Event()
    detector.batches = []
    return detector


def test_requests_that_wait_are_scored_together_and_one_too_many_is_told(
    slow: Slow, deciding: Path
) -> None:
    small = photographs(deciding, "photo.png")

    def post(port: int) -> tuple[int, dict[str, Any]]:
        client = Client(port)
        with closing(client.connection):
            return client.post(small)

    with running(application(slow, max_waiting=5)) as port, ThreadPoolExecutor(5) as pool:
        first = pool.submit(post, port)
        assert slow.begun.wait(30)
        others = [pool.submit(post, port) for _ in range(4)]
        client = Client(port)
        while "in_progress 5.0" not in client.get("/metrics")[1]:
            pass
        assert post(port)[0] == 429
        assert client.post(small * 2)[0] == 429
        slow.may_go.set()
        scores = {each.result()[1]["photographs"][0]["score"] for each in (first, *others)}
        assert client.post(small)[0] == 200
        client.connection.close()
    assert len(scores) == 1
    assert slow.batches[0] == 1
    assert max(slow.batches) > 1


class Failing(Detector):
    """Fails as often as it is told to."""

    def inspect(self, images: Tensor, **options: Any) -> list[Inspection]:
        if self.failures:
            raise self.failures.pop()
        return super().inspect(images, **options)


def test_a_failure_of_the_model_is_an_answer(deciding: Path) -> None:
    detector = Failing.load(deciding / "model.ckpt")
    detector.failures = [  # type: ignore[assignment]
        NotFiniteError("nan", index=0),
        RuntimeError("out of memory"),
    ]
    small = photographs(deciding, "photo.png")
    with connected(application(detector)) as client:
        status, said = client.post(small)
        assert (status, "RuntimeError" in said["error"]) == (500, True)
        status, said = client.post(small)
        assert "not finite" in said["photographs"][0]["error"]
        assert client.post(small)[1]["photographs"][0]["decision"] == "ok"


def test_a_port_in_use_is_one_sentence(deciding: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit) as exit_info:
            main(["serve", str(deciding / "model.ckpt"), f"--port={port}"])
    assert exit_info.value.code == 2
    assert f"Port {port} of 127.0.0.1 is in use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"port": 99_999}, "--port"),
        ({"host": "no-such-host.invalid"}, "no-such-host.invalid"),
        ({"batch_size": 0}, "--batch_size"),
        ({"token_file": "/nowhere"}, "--token_file '/nowhere'"),
        ({"token_file": "/dev/null"}, "first line"),
        ({"port": 0, "category": "screw"}, "screw"),
        ({"port": 0, "false_alarms": 0.0001}, "0.0001"),
    ],
)
def test_an_option_that_cannot_be_is_named(
    deciding: Path, options: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        serve(str(deciding / "model.ckpt"), **options)


def test_a_model_without_thresholds_cannot_serve(deciding: Path, tmp_path: Path) -> None:
    detector = Detector.load(deciding / "model.ckpt")
    detector.forget_products()
    detector.save(tmp_path / "model.ckpt", like=deciding / "model.ckpt")
    with pytest.raises(InputError, match=r"no thresholds.*omiad calibrate"):
        serve(str(tmp_path / "model.ckpt"), port=0)


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_PACKAGES", ("fastapi", "no_such_module"))
    with pytest.raises(InputError, match=r"needs no_such_module.*omiad\[serve\]"):
        serve("model.ckpt")
