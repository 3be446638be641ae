"""The service as a process: its page in a browser, many requests, and its end."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from browser import Browser
from client import Client

pytestmark = pytest.mark.slow
pytest.importorskip("fastapi", reason="omiad[serve] is not installed")

REQUESTS, CLIENTS = 10_000, 8


@contextmanager
def served(model: Path) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """Start `omiad serve` at a free port; yield the port and the process, and kill the process."""
    program = "from omiad.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", str(model), "--port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if "answering at" in line)
        yield int(line.rpartition(":")[2].strip().strip("/")), process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_service_after_the_requests_under_way(
    deciding: Path, number: signal.Signals
) -> None:
    photograph = ("photo.png", (deciding / "photo.png").read_bytes())
    with served(deciding / "model.ckpt") as (port, process), ThreadPoolExecutor(1) as pool:
        client = Client(port)
        with closing(client.connection):
            assert client.post([photograph])[0] == 200
            last = pool.submit(client.post, [photograph] * 60)
            other = Client(port)
            while "photographs_in_progress 60.0" not in other.get("/metrics")[1]:
                pass
            other.connection.close()
            process.send_signal(number)
            assert len(last.result()[1]["photographs"]) == 60
        assert process.wait(30) == 0
        assert process.stdout is not None
        assert process.stdout.read().split() == ["stopped"]


def test_ten_thousand_requests_leave_the_memory_flat(deciding: Path) -> None:
    photographs = [
        ("photo.png", (deciding / "photo.png").read_bytes()),
        ("hole.png", (deciding / "hole.png").read_bytes()),
        ("notes.txt", b"not an image"),
    ]
    decisions = ["ok", "defect", "unreadable"]

    def ask(port: int, count: int) -> None:
        client = Client(port)
        with closing(client.connection):
            for i in range(count):
                overlay = "?overlay=true" if i % 10 == 0 else ""
                status, said = client.post([photographs[i % 3]], overlay)
                assert status == 200
                assert said["photographs"][0]["decision"] == decisions[i % 3]

    def ask_all(port: int, count: int) -> int:
        with ThreadPoolExecutor(CLIENTS) as pool:
            for asked in [pool.submit(ask, port, count // CLIENTS) for _ in range(CLIENTS)]:
                asked.result()
        client = Client(port)
        with closing(client.connection):
            figures = client.get("/metrics")[1].splitlines()
        resident = next(line for line in figures if line.startswith("process_resident_memory"))
        return int(float(resident.split()[1]))

    with served(deciding / "model.ckpt") as (port, _):
        warm = ask_all(port, REQUESTS // 5)
        after = ask_all(port, REQUESTS - REQUESTS // 5)
    assert after - warm < 2**24  # 1.7 kB for each request would exceed it


def test_photographs_dropped_on_the_page_get_decisions_and_overlays(
    deciding: Path, tmp_path: Path
) -> None:
    (tmp_path / '<img src=x onerror="alert(1)">.png').write_bytes(b"not an image")
    files = [deciding / "photo.png", deciding / "hole.png", *tmp_path.glob("*.png")]
    browser = Browser(tmp_path / "profile")
    with served(deciding / "model.ckpt") as (port, _), closing(browser):
        browser.open(f"http://127.0.0.1:{port}/")
        document = browser.call("DOM.getDocument")["root"]["nodeId"]
        chooser = browser.call("DOM.querySelector", nodeId=document, selector="#files")["nodeId"]
        browser.call("DOM.setFileInputFiles", nodeId=chooser, files=[*map(str, files)])
        shown = browser.run("""
          const all = (selector) => [...document.querySelectorAll(`#gallery ${selector}`)];
          const isAnswered = (mark) => mark.dataset.outcome !== "waiting";
          while (all(".outcome").filter(isAnswered).length < 3)
            await new Promise((resolve) => setTimeout(resolve, 20));
          await Promise.all(all("img").map((image) => image.decode().catch(() => 0)));
          return all("> li").map((card) => ({
            decision: card.querySelector(".outcome").dataset.outcome,
            pictures: [...card.querySelectorAll("img")].filter((i) => i.naturalWidth).length,
            boxes: card.querySelectorAll(".box").length }));
        """)
        assert [each["decision"] for each in shown] == ["defect", "ok", "unreadable"]
        assert [each["pictures"] for each in shown] == [2, 2, 0]
        assert shown[0]["boxes"] >= 1
        count = browser.run('return document.querySelector("#count").textContent')
        assert count == "1 defect, 1 ok, 1 unreadable"
        browser.run('document.querySelector("#gallery button").click()')
        assert browser.run('return document.querySelector("#viewer").open')
        browser.run("""
          document.querySelector("#close").click();
          document.querySelector("#decision").value = "defect";
          document.querySelector("#decision").dispatchEvent(new Event("change"));
        """)
        assert browser.run('return document.querySelectorAll("#gallery > li").length') == 1
        addresses = {each for each in browser.requests if not each.startswith("blob:")}
    assert browser.problems == []
    assert addresses == {f"http://127.0.0.1:{port}{end}" for end in ("/", "/predict?overlay=true")}
