"""`omiad predict`: decide about photographs; write a table, overlays, and a page."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from omiad.compilation import CompileMode, compile_detector
from omiad.detector import Detector
from omiad.errors import InputError
from omiad.files import digest, only_writer
from omiad.names import first_of
from omiad.prediction.journal import JOURNAL, WATCHED, Journal, journal_name
from omiad.prediction.outputs import FOLDERS, Outputs, Overlays
from omiad.prediction.photographs import check_given, find_photographs, state_of
from omiad.prediction.predictions import Predictions
from omiad.prediction.ranks import ALONE, Ranks, Share, launch
from omiad.prediction.scorer import Scorer
from omiad.prediction.table import TABLES, Format, Table
from omiad.report import PredictionPage, free_page
from omiad.runtimes import device_for
from omiad.version import __version__

logger = logging.getLogger(__name__)


def predict(
    model: str,
    photos: list[str],
    *,
    output: str = "predictions",
    category: str | None = None,
    false_alarms: float | None = None,
    overlays: Overlays = "defects",
    masks: bool = False,
    maps: bool = False,
    format: Format = "csv",  # noqa: A002  the name of the option
    watch: bool = False,
    batch_size: int = 8,
    num_workers: int = 2,
    device: str = "auto",
    compile: CompileMode | None = None,  # noqa: A002  the name of the option
    trust: str | None = None,
    max_megabytes: float = 20,
    trainer: Ranks = ALONE,
) -> None:
    """Decide for each photograph whether it is ok or shows a defect, and where.

    Writes predictions.csv with a row for each file: product, score, p-value, threshold, decision
    and the largest defect. index.html is a page of the photographs, the worst first. If the command
    is interrupted, the same command goes on where it stopped.

    Args:
        model: Checkpoint, or a file of `omiad export`; no other file is needed.
        photos: Photographs, folders, which are searched with their sub-folders, and patterns such
            as "photos/*.png". Links are followed; hidden files and earlier outputs are left out.
        output: Folder to write to.
        category: The product that all photographs show. By default each photograph is compared with
            the products that the model knows.
        false_alarms: Share of normal photographs that may be called defective, such as 0.01; by
            default the rate that the model was calibrated for.
        overlays: Which photographs get an overlay, which has the photograph's own size and outlines
            the defects: defects, all or none. Without thresholds, defects means all.
        masks: Write the defective pixels of each photograph, at its own size, as a PNG of 0 and
            255.
        maps: Write the anomaly map of each photograph, at the model's size, as float32 .npy.
        format: csv, or jsonl for predictions.jsonl with all regions of each photograph.
        watch: Go on with photographs that arrive, until Ctrl-C. A file that is still being written
            is left until it is whole.
        batch_size: Photographs scored at once; it changes no score.
        num_workers: Threads that read photographs beside the scoring.
        device: cpu, cuda, cuda:1, mps, or auto for a GPU if there is one.
        compile: Compile the model by torch.compile before the first photograph, which can take
            minutes: default, or reduce-overhead for CUDA graphs on a GPU.
        trust: Class path of a network of your own that the checkpoint names; it is imported.
        max_megabytes: Most that the pictures of the page may take, in MB of 10**6 bytes. The least
            anomalous photographs are left out of the page.
        trainer: Processes that share the photographs, on one machine or several with a common
            folder. The table is the same as that of one process.

    Raises:
        InputError: If the output folder holds predictions, or unfinished ones of another command;
            if an option is out of range; if the model does not know the product or the rate. If a
            photograph cannot be read, the error comes after all others have been scored.
    """
    if batch_size < 1:
        raise InputError(f"--batch_size must be at least 1, but got {batch_size}.")
    if num_workers < 0:
        raise InputError(f"--num_workers must be at least 0, but got {num_workers}.")
    folder = Path(output)
    page = PredictionPage(folder, max_megabytes=max_megabytes)
    if watch:
        check_given(photos)
        if trainer != ALONE:
            raise InputError("--watch takes one process. Leave --trainer out.")
    photographs = [] if watch else find_photographs(photos)
    share, where = launch(trainer, device_for(model, device))
    journal = folder / (WATCHED if watch else journal_name(share.rank))
    with _claimed(folder, journal, share):
        detector = Detector.load(model, device=where, trust=trust)
        _check_decisions(detector, category, false_alarms, model)
        if compile is not None:  # before the journal, which would refuse the same command without
            compile_detector(detector, compile)
        made_of = {
            "MODEL": digest(Path(model)),
            "PHOTOS (or their sizes or times)": photos if watch else state_of(photographs),
            "--category": category,
            "--false_alarms": false_alarms,
            "--overlays": overlays,
            "--masks": masks,
            "--maps": maps,
            "--watch": watch,
            "--device": where.type,
            "--compile": compile,
            "--trainer.devices and --trainer.num_nodes": share.size,
            "--max_megabytes": max_megabytes,
            "version of omiad": __version__,
        }
        scale = detector.map_range.tolist()
        prediction = Predictions(
            Journal(journal, made_of),
            page,
            Outputs(folder, scale, detector.extractor.white_level, overlays, masks, maps),
            Table(folder, format),
            share,
        )
        scorer = Scorer(
            detector,
            batch_size=batch_size,
            num_workers=num_workers,
            category=category,
            false_alarms=false_alarms,
        )
        if watch:
            prediction.watch(scorer, photos)
        else:
            prediction.run(scorer, photographs)
        share.wait()
        if share.rank:
            return
        others = (folder / journal_name(rank) for rank in range(1, share.size))
        prediction.join([Journal(path, made_of) for path in others])
        unreadable = prediction.finish(scale)
        if not watch:
            prediction.rows.remove()
    if unreadable:
        raise InputError(
            f"{len(unreadable)} of {prediction.rows.num_rows} photographs could not be read: "
            f"{first_of(unreadable)}. `error` in '{prediction.table.path}' says why."
        )


def _check_decisions(
    detector: Detector, category: str | None, false_alarms: float | None, model: str
) -> None:
    """Refuse a product that the model does not know, and a rate that it cannot keep."""
    if not detector.products.names:
        mend = f"`omiad calibrate {model} PHOTOS` learns them from photographs of good parts."
        if category is not None or false_alarms is not None:
            raise InputError(f"The model has no thresholds and knows no products. {mend}")
        logger.warning("The model has no thresholds, so no photograph gets a decision. %s", mend)
    detector.judge(category, false_alarms)


@contextmanager
def _claimed(folder: Path, journal: Path, share: Share) -> Iterator[None]:
    """Hold the folder of the predictions for one run; remove the folder if it stays empty.

    The first of several processes holds the folder for the others. What a killed process left
    half-written is removed.

    Raises:
        InputError: If another process writes to the folder, or if it holds other predictions.
    """
    if share.rank:
        share.wait()
        yield
        return
    if folder.exists() and not folder.is_dir():
        raise InputError(f"'{folder}' is a file. Give --output a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with only_writer(folder / ".predict.lock", owner=folder):
            goes_on = journal.name == WATCHED and journal.exists()
            if not goes_on and any((folder / name).exists() for name in TABLES.values()):
                for done in folder.glob(f"{JOURNAL}*"):  # killed just before it did so itself
                    done.unlink()
                raise InputError(f"'{folder}' already holds predictions. Choose another --output.")
            if not journal.exists():
                free_page(folder, option="--output")
            for place in (folder, *(folder / name for name in FOLDERS)):
                for half in place.glob(".[0-9]*.part"):
                    half.unlink()
            share.wait()
            yield
    finally:
        with suppress(OSError):
            folder.rmdir()
