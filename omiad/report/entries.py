"""What the gallery of a page shows: images with the score, map and outcome of each run."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omiad.gallery import KeptImages, turns
from omiad.protocols import PROTOCOLS
from omiad.report.pictures import Album, map_picture, mask_picture, photograph, plain_picture
from omiad.report.runs import TestedRun
from omiad.types import NORMAL

logger = logging.getLogger(__name__)

MISTAKES = ("false alarm", "miss")
OUTCOMES = ("false alarm", "miss", "detected", "passed", "not judged")
"""False positive, false negative, true positive, true negative; and without a threshold."""


class Verdict(NamedTuple):
    """What a run says of an image.

    Attributes:
        run: Number of the run.
        row: Row of the image among those its category kept.
        score: Image score.
        outcome: One of `OUTCOMES`.
        wrongness: How far the score is on the wrong side of the threshold, in standard deviations
            of the category's scores; negative on the right side.
    """

    run: int
    row: int
    score: float
    outcome: str
    wrongness: float


class Gallery(NamedTuple):
    """The gallery of a page.

    Attributes:
        data: What page.js draws, as plain data.
        num_shown: Images in it.
        num_kept: Images whose maps the tests kept.
        num_tested: Images tested.
        num_without_photograph: Images shown whose photographs are not there.
    """

    data: dict[str, Any]
    num_shown: int
    num_kept: int
    num_tested: int
    num_without_photograph: int


def collect(runs: Sequence[TestedRun], album: Album, *, root: Path | None) -> Gallery:
    """Choose images, mistakes first, and put their pictures into the album until it is full.

    Args:
        runs: The tests; the same image of several is shown once, with the map of each.
        album: Where pictures go.
        root: Folder of the photographs, by default the one each run was tested on.
    """
    verdicts = _verdicts(runs)
    roots = [root or Path(str(run.record.get("root", ""))) for run in runs]
    references = _references(runs, roots, album)
    images, missing = [], 0
    for category, name in _mistakes_first(verdicts):
        entry = _entry(runs, roots, album, category, name, verdicts[category, name])
        if entry is None:
            break
        missing += entry["photo"] is None
        images.append(entry)
    if missing:
        logger.warning(
            "%d of %d photographs are not below %s, so that the page shows their maps alone. Say "
            "where they lie by --root.", missing, len(images), roots[0]
        )  # fmt: skip
    data = {
        "judged": True,
        "runs": [
            {
                "name": run.name,
                "thresholds": {name: scores.threshold for name, scores in run.scores.items()},
            }
            for run in runs
        ],
        "references": references,
        "images": images,
    }
    tested = {(c, n) for run in runs for c, s in run.scores.items() for n in s.name.tolist()}
    return Gallery(data, len(images), len(verdicts), len(tested), missing)


def _verdicts(runs: Sequence[TestedRun]) -> dict[tuple[str, str], list[Verdict]]:
    found: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for number, run in enumerate(runs):
        for category, kept in run.kept.items():
            threshold = run.scores[category].threshold
            spread = float(run.scores[category].score.std()) or 1.0
            for row, name in enumerate(kept.name.tolist()):
                score = float(kept.score[row])
                is_normal = str(kept.defect[row]) == NORMAL
                outcome = _outcome(score, threshold, is_normal=is_normal)
                above = 0.0 if threshold is None else (score - threshold) / spread
                wrongness = above if is_normal else -above
                found[category, name].append(Verdict(number, row, score, outcome, wrongness))
    return found


def _mistakes_first(verdicts: Mapping[tuple[str, str], Sequence[Verdict]]) -> list[tuple[str, str]]:
    """Order images: mistakes of any run before all others, categories and outcomes in turn."""
    groups: dict[tuple[bool, str, str], list[tuple[float, tuple[str, str]]]] = defaultdict(list)
    for key, found in verdicts.items():
        worst = max(found, key=lambda verdict: verdict.wrongness)
        is_mistake = worst.outcome in MISTAKES
        # Right ones stay in the order of the test.
        wrongness = worst.wrongness if is_mistake else 0.0
        groups[not is_mistake, key[0], worst.outcome].append((-wrongness, key))
    ordered = [
        [key for _, key in sorted(groups[name], key=lambda image: image[0])]
        for name in sorted(groups)
    ]
    num_wrong = sum(not is_right for is_right, _, _ in groups)
    return turns(ordered[:num_wrong]) + turns(ordered[num_wrong:])


def _outcome(score: float, threshold: float | None, *, is_normal: bool) -> str:
    if threshold is None:
        return "not judged"
    if score >= threshold:
        return "false alarm" if is_normal else "detected"
    return "passed" if is_normal else "miss"


def _references(
    runs: Sequence[TestedRun], roots: Sequence[Path], album: Album
) -> dict[str, str | None]:
    """Return the address of a normal photograph of each category; of training where it is known."""
    found: dict[str, str | None] = {}
    for run, root in zip(runs, roots, strict=True):
        for category, kept in run.kept.items():
            name = str(kept.reference[0]) or _most_normal(kept)
            if found.get(category) is None and name:
                read = photograph(root / name, album.side, kept_part=_kept_part(run))
                taken = album.take((read[0], "jpg")) if read else None
                found[category] = taken[0] if taken else None
    return found


def _most_normal(kept: KeptImages) -> str:
    rows = [i for i, defect in enumerate(kept.defect.tolist()) if defect == NORMAL]
    return str(kept.name[min(rows, key=lambda i: float(kept.score[i]))]) if rows else ""


def _entry(
    runs: Sequence[TestedRun],
    roots: Sequence[Path],
    album: Album,
    category: str,
    name: str,
    verdicts: Sequence[Verdict],
) -> dict[str, Any] | None:
    """Return an image as plain data, None if its pictures do not fit any more."""
    first = verdicts[0]
    kept = runs[first.run].kept[category]
    read = photograph(roots[first.run] / name, album.side, kept_part=_kept_part(runs[first.run]))
    mask = kept.mask[first.row]
    has_mask = bool(kept.has_mask[first.row])
    pictures: list[tuple[bytes, str] | None] = [
        (read[0], "jpg") if read else None,
        (mask_picture(mask), "png") if has_mask and mask.any() else None,
    ]
    for verdict in verdicts:
        theirs = runs[verdict.run].kept[category]
        drawn = theirs.reconstruction[verdict.row]
        pictures.append((map_picture(theirs.level[verdict.row]), "jpg"))
        pictures.append((plain_picture(drawn), "jpg") if drawn.size else None)
    taken = album.take(*pictures)
    if taken is None:
        return None
    by_run = {
        verdict.run: {
            "score": verdict.score,
            "outcome": verdict.outcome,
            "wrongness": round(verdict.wrongness, 4),
            "map": taken[2 + 2 * i],
            "reconstruction": taken[3 + 2 * i],
        }
        for i, verdict in enumerate(verdicts)
    }
    return {
        "name": name,
        "category": category,
        "defect": str(kept.defect[first.row]),
        "aspect": round(read[1], 4) if read else 1.0,
        "photo": taken[0],
        "mask": taken[1],
        "has_mask": has_mask,
        "runs": [by_run.get(number) for number in range(len(runs))],
    }


def _kept_part(run: TestedRun) -> float:
    """Return which part of each side of a photograph the protocol keeps."""
    preset = PROTOCOLS.get(str(run.record["protocol"]))
    if preset is None:
        return 1.0
    changes = run.record.get("protocol_changes", {})
    size = int(changes.get("input_size", preset.input_size))
    return int(changes.get("crop", preset.crop) or size) / size
