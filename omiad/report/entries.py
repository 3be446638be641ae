"""The images of a page: photograph and mask, and the score, map and outcome of each run."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omiad.protocols import PROTOCOLS
from omiad.report.kept import turns
from omiad.report.pictures import Album, map_picture, mask_picture, photograph, plain_picture
from omiad.report.runs import TestedRun
from omiad.types import NORMAL

logger = logging.getLogger(__name__)

_MISTAKES = ("false alarm", "miss")


class Verdict(NamedTuple):
    """The judgement of one run on one image.

    Attributes:
        run: Number of the run.
        row: Row of the image among the stored images of its category.
        score: Image score.
        outcome: "false alarm", "miss", "detected", "passed", or "not judged" without a threshold.
        wrongness: Distance of the score from the threshold on the wrong side, in standard
            deviations of the category's scores; negative on the right side.
    """

    run: int
    row: int
    score: float
    outcome: str
    wrongness: float


class GalleryEntries(NamedTuple):
    """The images of a page.

    Attributes:
        data: What gallery.js draws, as plain data.
        num_shown: Images on the page.
        num_kept: Images whose maps the tests kept.
        num_tested: Images tested.
        num_without_photograph: Images on the page whose photographs were not found.
    """

    data: dict[str, Any]
    num_shown: int
    num_kept: int
    num_tested: int
    num_without_photograph: int


def collect(runs: Sequence[TestedRun], album: Album, *, root: Path | None) -> GalleryEntries:
    """Put images into the album until it is full, mistakes first.

    Args:
        runs: The tests. An image of several tests is shown once, with the map of each.
        album: Where pictures go.
        root: Folder of the photographs, by default the one that each run was tested on.
    """
    roots = [root or Path(str(run.record.get("root", ""))) for run in runs]
    verdicts = _verdicts(runs)
    references = _references(runs, roots, album)
    images: list[dict[str, Any]] = []
    for category, name in _mistakes_first(verdicts):
        image = _image(runs, roots, album, category, name, verdicts[category, name])
        if image is None:
            break
        images.append(image)
    num_missing = sum(image["photo"] is None for image in images)
    if num_missing:
        logger.warning(
            "%d of %d photographs were not found below %s, so the page shows only their maps. Give "
            "their folder with --root.",
            num_missing,
            len(images),
            roots[0],
        )
    data = {
        "judged": True,
        "runs": [
            {
                "name": run.name,
                "thresholds": {name: of.threshold for name, of in run.scores.items()},
            }
            for run in runs
        ],
        "references": references,
        "images": images,
    }
    tested = {(c, n) for run in runs for c, of in run.scores.items() for n in of.name.tolist()}
    return GalleryEntries(data, len(images), len(verdicts), len(tested), num_missing)


def _verdicts(runs: Sequence[TestedRun]) -> dict[tuple[str, str], list[Verdict]]:
    """Judge every stored image, by category and name."""
    found: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for number, run in enumerate(runs):
        for category, stored in run.stored.items():
            threshold = run.scores[category].threshold
            spread = float(run.scores[category].score.std()) or 1.0
            columns = (stored.name.tolist(), stored.defect.tolist(), stored.score.tolist())
            for row, (name, defect, score) in enumerate(zip(*columns, strict=True)):
                is_normal = defect == NORMAL
                above = 0.0 if threshold is None else (score - threshold) / spread
                outcome = _outcome(score, threshold, is_normal=is_normal)
                verdict = Verdict(number, row, score, outcome, above if is_normal else -above)
                found[category, name].append(verdict)
    return found


def _outcome(score: float, threshold: float | None, *, is_normal: bool) -> str:
    if threshold is None:
        return "not judged"
    if score >= threshold:
        return "false alarm" if is_normal else "detected"
    return "passed" if is_normal else "miss"


def _mistakes_first(verdicts: Mapping[tuple[str, str], Sequence[Verdict]]) -> list[tuple[str, str]]:
    """Order images: mistakes of any run before all others, categories and outcomes in turn."""
    mistakes: dict[tuple[str, str], list[tuple[float, tuple[str, str]]]] = defaultdict(list)
    others: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for key, found in verdicts.items():
        worst = max(found, key=lambda verdict: verdict.wrongness)
        if worst.outcome in _MISTAKES:
            mistakes[key[0], worst.outcome].append((-worst.wrongness, key))
        else:
            others[key[0], worst.outcome].append(key)
    worst_first = [[key for _, key in sorted(mistakes[group])] for group in sorted(mistakes)]
    return turns(worst_first) + turns([others[group] for group in sorted(others)])


def _references(
    runs: Sequence[TestedRun], roots: Sequence[Path], album: Album
) -> dict[str, str | None]:
    """Return the address of a normal photograph of each category, from training if it is known."""
    found: dict[str, str | None] = {}
    for run, root in zip(runs, roots, strict=True):
        for category, stored in run.stored.items():
            normal = [
                (float(score), str(name))
                for score, name, defect in zip(
                    stored.score, stored.name, stored.defect, strict=True
                )
                if defect == NORMAL
            ]
            name = str(stored.reference[0]) or min(normal, default=(0.0, ""))[1]
            if found.get(category) is None and name:
                read = photograph(root / name, album.side, kept_part=_kept_part(run))
                taken = album.take((read[0], "jpg")) if read else None
                found[category] = taken[0] if taken else None
    return found


def _image(
    runs: Sequence[TestedRun],
    roots: Sequence[Path],
    album: Album,
    category: str,
    name: str,
    verdicts: Sequence[Verdict],
) -> dict[str, Any] | None:
    """Return an image as plain data, None if its pictures no longer fit into the album."""
    run, row = verdicts[0].run, verdicts[0].row
    stored = runs[run].stored[category]
    read = photograph(roots[run] / name, album.side, kept_part=_kept_part(runs[run]))
    mask, has_mask = stored.mask[row], bool(stored.has_mask[row])
    pictures = [
        (read[0], "jpg") if read else None,
        (mask_picture(mask), "png") if has_mask and mask.any() else None,
    ]
    for verdict in verdicts:
        theirs = runs[verdict.run].stored[category]
        drawn = theirs.reconstruction[verdict.row]
        pictures.append((map_picture(theirs.level[verdict.row]), "jpg"))
        pictures.append((plain_picture(drawn), "jpg") if drawn.size else None)
    taken = album.take(*pictures)
    if taken is None:
        return None
    of_run: list[dict[str, Any] | None] = [None] * len(runs)
    for i, verdict in enumerate(verdicts):
        of_run[verdict.run] = {
            "score": verdict.score,
            "outcome": verdict.outcome,
            "wrongness": round(verdict.wrongness, 4),
            "map": taken[2 + 2 * i],
            "reconstruction": taken[3 + 2 * i],
        }
    return {
        "name": name,
        "category": category,
        "defect": str(stored.defect[row]),
        "aspect": round(read[1], 4) if read else 1.0,
        "photo": taken[0],
        "mask": taken[1],
        "has_mask": has_mask,
        "runs": of_run,
    }


def _kept_part(run: TestedRun) -> float:
    """Return the part of each side of a photograph that the protocol keeps."""
    preset = PROTOCOLS.get(str(run.record["protocol"]))
    if preset is None:
        return 1.0
    changes = run.record.get("protocol_changes") or {}
    size = int(changes.get("input_size", preset.input_size))
    return int(changes.get("crop", preset.crop) or size) / size
