"""`omiad predict`: score photographs; write a table, an overlay of each, and a page of them."""

import csv
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from omiad.detector import Detector
from omiad.devices import pick_device
from omiad.errors import MOST_NAMED, InputError
from omiad.files import only_writer, whole_file
from omiad.names import cell, one_line
from omiad.prediction.journal import JOURNAL, Journal
from omiad.prediction.photographs import Photograph, digest, find_photographs
from omiad.prediction.scorer import OVERLAYS, Scorer
from omiad.report import PredictionPage, free_page
from omiad.version import __version__

logger = logging.getLogger(__name__)

TABLE = "predictions.csv"
COLUMNS = ("image", "score", "overlay", "error")


def predict(
    ckpt_path: str,
    images: str,
    *,
    output: str = "predictions",
    batch_size: int = 8,
    device: str = "auto",
    max_megabytes: float = 20,
) -> None:
    """Score photographs and draw where each is anomalous.

    Writes predictions.csv (image, score, overlay, error) with a row for each photograph, an overlay
    of each image, and index.html, a page of the images. All overlays share the scale that the
    checkpoint stores, so that an overlay of a normal image stays clear. If the command is
    interrupted, the same command goes on where it stopped.

    Args:
        ckpt_path: Checkpoint of an AMDM or OmiAD run; no other file is needed.
        images: An image, or a folder, which is searched with its sub-folders. Links are followed;
            hidden files and earlier outputs are left out.
        output: Folder to write to.
        batch_size: Images scored at once; apart from rounding, it changes no score.
        device: cpu, cuda, cuda:1, mps, or auto for a GPU if there is one.
        max_megabytes: Most that the pictures of the page may take, in MB of 10**6 bytes. The least
            anomalous images are left out of the page.

    Raises:
        InputError: If the output folder holds predictions, or unfinished ones of another command,
            or if batch_size is below 1. If an image cannot be read, the error comes after all
            other images have been scored.
    """
    if batch_size < 1:
        raise InputError(f"--batch_size must be at least 1, but got {batch_size}.")
    folder = Path(output)
    page = PredictionPage(folder, max_megabytes=max_megabytes)
    photographs = find_photographs([images])
    with _claimed(folder):
        detector = Detector.load(ckpt_path, device=pick_device(device))
        made_of = {
            "--ckpt_path": hashlib.sha256(Path(ckpt_path).read_bytes()).hexdigest(),
            "--images (or their sizes or times)": digest(photographs),
            "--batch_size": batch_size,
            "--device": str(detector.map_range.device),
            "--max_megabytes": max_megabytes,
            "version of omiad": __version__,
        }
        journal = Journal(folder / JOURNAL, made_of)
        scorer = Scorer(detector, folder=folder, batch_size=batch_size)
        _score(scorer, photographs, journal=journal, page=page)
        unreadable = [one_line(row["image"]) for row in journal.rows() if row["error"]]
        num_scored = len(photographs) - len(unreadable)
        path = page.write(num_scored=num_scored, scale=detector.map_range.tolist())
        if hasattr(os, "sync"):
            os.sync()  # the overlays reach the disk before the table that lists them
        _write_table(folder / TABLE, journal)
        journal.remove()
    logger.info("page: %s", path)
    logger.info("predictions of %d images: %s", num_scored, folder)
    if unreadable:
        more = f" and {len(unreadable) - MOST_NAMED} more" if unreadable[MOST_NAMED:] else ""
        raise InputError(
            f"{len(unreadable)} of {len(photographs)} photographs could not be read: "
            f"{', '.join(unreadable[:MOST_NAMED])}{more}. The column `error` of "
            f"'{folder / TABLE}' says why."
        )


def _score(
    scorer: Scorer, photographs: Sequence[Photograph], *, journal: Journal, page: PredictionPage
) -> None:
    """Add the photographs to the journal and to the page, those that the journal holds first."""
    if journal.num_rows:
        logger.info("going on after %d of %d photographs", journal.num_rows, len(photographs))
    for number, row in enumerate(journal.rows()):
        if row["entry"]:
            page.add(number, row["entry"])
    try:
        with closing(scorer.rows(photographs, first=journal.num_rows)) as rows:
            for row in rows:
                if row["entry"] and not page.add(journal.num_rows, row["entry"]):
                    row["entry"] = None  # the page is full of more anomalous photographs
                journal.add(row)
    except KeyboardInterrupt:
        done = f"{journal.num_rows} of {len(photographs)}"
        logger.warning("Interrupted after %s photographs. The same command goes on.", done)
        raise


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Hold the folder of the predictions for one process; remove the folder if it stays empty.

    What a killed process left half-written is removed.

    Raises:
        InputError: If another process writes to the folder, or if it holds predictions.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"'{folder}' is a file. Give --output a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with only_writer(folder / ".predict.lock", owner=folder):
            if (folder / TABLE).exists():
                (folder / JOURNAL).unlink(missing_ok=True)  # killed just before it did so itself
                raise InputError(f"'{folder}' already holds predictions. Choose another --output.")
            if not (folder / JOURNAL).exists():
                free_page(folder, option="--output")
            for place in (folder, folder / OVERLAYS):
                for half in place.glob(".[0-9]*.part"):
                    half.unlink()
            yield
    finally:
        with suppress(OSError):
            folder.rmdir()


def _write_table(path: Path, journal: Journal) -> None:
    # A file name need not be text: it is written with the bytes that it has on disk.
    with (
        whole_file(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for row in journal.rows():
            score = "" if row["score"] is None else f"{row['score']:.6g}"
            table.writerow(
                [cell(row["image"]), score, row["overlay"], cell(one_line(row["error"]))]
            )
