"""Score photographs, those of a list or those that arrive, and keep what was found."""

import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import replace

from omiad.prediction.journal import Journal, Row, Rows, SharedJournals
from omiad.prediction.outputs import Outputs
from omiad.prediction.photographs import Photograph
from omiad.prediction.ranks import Share
from omiad.prediction.scorer import Scored, Scorer
from omiad.prediction.table import Table
from omiad.prediction.watching import Watch
from omiad.progress import Progress
from omiad.report import PredictionPage, counted

logger = logging.getLogger(__name__)


class Predictions:
    """The photographs that were scored so far, with their rows, files and page.

    Args:
        journal: Rows of this process, which may have some of an earlier run.
        page: The page, still empty.
        outputs: Writes the files of a photograph.
        table: The table.
        share: Which photographs this process scores.

    Attributes:
        rows: Rows of all processes.
    """

    def __init__(
        self,
        journal: Journal,
        page: PredictionPage,
        outputs: Outputs,
        table: Table,
        share: Share,
    ) -> None:
        self.journal, self.page, self.outputs, self.table = journal, page, outputs, table
        self.share = share
        self.rows: Rows = journal
        self._show(journal, share)

    def join(self, others: Sequence[Journal]) -> None:
        """Take in the rows of all other processes, in the order of their numbers."""
        for rank, journal in enumerate(others, start=1):
            self._show(journal, replace(self.share, rank=rank))
        if others:
            self.rows = SharedJournals([self.journal, *others])

    def _show(self, journal: Journal, share: Share) -> None:
        for count, row in enumerate(journal.rows()):
            if row["entry"]:
                self.page.add(share.number(count), row["entry"])

    def add(self, photograph: Photograph, result: Scored | str) -> Row:
        """Write what was found in a photograph."""
        number = self.share.number(self.journal.num_rows)
        row = self.outputs.row(number, photograph, result)
        if row["entry"] and not self.page.add(number, row["entry"]):
            row["entry"] = None  # the page is full of more anomalous photographs
        self.journal.add(row)
        return row

    def run(self, scorer: Scorer, photographs: Sequence[Photograph]) -> None:
        """Score the photographs of this process that have no row yet."""
        photographs = photographs[self.share.rank :: self.share.size]
        first, count = self.journal.num_rows, len(photographs)
        if first:
            logger.info("going on after %d of %d photographs", first, count)
        try:
            with (
                Progress("predict", count, unit="photograph", done=first) as progress,
                closing(scorer.results(photographs[first:])) as results,
            ):
                for photograph, result in results:
                    self.add(photograph, result)
                    progress.update(self.journal.num_rows)
        except KeyboardInterrupt:
            done = f"{self.journal.num_rows} of {count}"
            logger.warning("Interrupted after %s photographs. The same command goes on.", done)
            raise

    def watch(self, scorer: Scorer, photos: Sequence[str]) -> None:
        """Score photographs as they arrive, until Ctrl-C; the table has each row at once."""
        self.table.write(self.journal.rows())
        known = ((row["image"], *row["stamp"]) for row in self.journal.rows())
        watch = Watch(photos, known)  # type: ignore[arg-type]
        logger.info("watching %s; Ctrl-C ends", ", ".join(photos))
        with suppress(KeyboardInterrupt):
            for arrived in watch.arrivals():
                start = time.perf_counter()
                with closing(scorer.results(arrived)) as results:
                    for photograph, result in results:
                        if watch.done(photograph, is_unreadable=isinstance(result, str)):
                            row = self.add(photograph, result)
                            self.table.append(row)
                            seconds = time.perf_counter() - start
                            logger.info("%s: %s, %.2f s", photograph.name, _said(row), seconds)

    def finish(self, scale: Sequence[float]) -> list[str]:
        """Write the page and the table; return the paths of photographs that were unreadable."""
        decisions = Counter(row["decision"] for row in self.rows.rows())
        path = self.page.write(decisions=decisions, scale=scale)
        if hasattr(os, "sync"):
            os.sync()  # the pictures reach the disk before the table that lists them
        self.table.write(self.rows.rows())
        logger.info("%d photographs: %s", decisions.total(), counted(decisions))
        logger.info("table: %s", self.table.path)
        logger.info("page: %s", path)
        return [row["image"] for row in self.rows.rows() if row["error"]]


def _said(row: Row) -> str:
    """Return the decision of a row, and its reason, as a person says it."""
    if row["threshold"] is None or row["score"] is None:
        return row["decision"]
    sign = ">" if row["decision"] == "defect" else "<="
    return (
        f"{row['decision']} ({row['product']}, score {row['score']:.4g} {sign} "
        f"{row['threshold']:.4g}, p = {row['p_value']:.2g})"
    )
