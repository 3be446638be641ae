"""The images of a page: photograph and mask, and the score, map and outcome of each run."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeAlias

from omiad.protocols import PROTOCOLS
from omiad.report.kept import turns
from omiad.report.pictures import Album, map_picture, mask_picture, photograph, plain_picture
from omiad.report.runs import TestedRun
from omiad.types import NORMAL

logger = logging.getLogger(__name__)

_MISTAKES = ("false alarm", "miss")

_Judgement: TypeAlias = tuple[int, int, dict[str, Any]]
"""Number of a run, row of the image among its stored images, and what gallery.js shows of both."""


def images(
    runs: Sequence[TestedRun], album: Album, *, root: Path | None, max_megabytes: float
) -> dict[str, Any]:
    """Return the images of a page, mistakes first, and what the page says about them.

    Args:
        runs: The tests. An image of several tests is shown once, with the map of each.
        album: Takes the pictures until it is full.
        root: Folder of the photographs, by default the one that each run was tested on.
        max_megabytes: Limit of the album.
    """
    roots = [root or Path(str(run.record.get("root", ""))) for run in runs]
    judged = _judged(runs)
    references = _references(runs, roots, album)
    in_order = (_image(runs, roots, album, key, judged[key]) for key in _mistakes_first(judged))
    shown = list(takewhile(bool, in_order))
    warnings = []
    if silent := [run.name for run in runs if not run.stored]:
        warnings.append(
            f"{', '.join(silent)} kept no maps (--num_kept 0). Repeat the test to see them."
        )
    if num_missing := sum(image is not None and image["photo"] is None for image in shown):
        warnings.append(
            f"{num_missing} of {len(shown)} photographs were not found below {roots[0]}. Make the "
            f"report again with --root, the folder where they are now."
        )
        logger.warning(warnings[-1])
    tested = {(c, n) for run in runs for c, of in run.scores.items() for n in of.name.tolist()}
    thresholds = [{name: of.threshold for name, of in run.scores.items()} for run in runs]
    data = {
        "judged": True,
        "runs": [
            {"name": run.name, "thresholds": limits}
            for run, limits in zip(runs, thresholds, strict=True)
        ],
        "references": references,
        "images": shown,
    }
    return {
        "about": f"{_how_many(len(tested), len(judged), len(shown), max_megabytes)} An image "
        "counts as defective if its score reaches the threshold of its category: the score with "
        "the highest F1 on these test images. A mistake is worse the further its score is on the "
        "wrong side of the threshold, in standard deviations of the category's scores.",
        "warnings": warnings,
        "scales": [
            (i, run.name, *run.record["map_range"]) for i, run in enumerate(runs) if run.stored
        ],
        "gallery": data if shown else None,
    }


def _how_many(num_tested: int, num_kept: int, num_shown: int, max_megabytes: float) -> str:
    if num_shown == num_tested:
        return f"All {num_tested} test images."
    reasons = []
    if num_kept < num_tested:
        reasons.append(
            f"the tests kept the maps of {num_kept} (--num_kept): of each category the worst false "
            "alarms and misses, and a sample of each defect"
        )
    if num_shown < num_kept:
        reasons.append(
            f"the pictures of a page may take {max_megabytes:g} MB (--max_megabytes), mistakes "
            "first"
        )
    return f"{num_shown} of {num_tested} test images: {'; '.join(reasons)}."


def _judged(runs: Sequence[TestedRun]) -> dict[tuple[str, str], list[_Judgement]]:
    """Judge every stored image, by category and name.

    The wrongness is the distance of a score from the threshold on the wrong side, in standard
    deviations of the category's scores; it is negative on the right side.
    """
    found: dict[tuple[str, str], list[_Judgement]] = defaultdict(list)
    for number, run in enumerate(runs):
        for category, stored in run.stored.items():
            threshold = run.scores[category].threshold
            spread = float(run.scores[category].score.std()) or 1.0
            columns = (stored.name.tolist(), stored.defect.tolist(), stored.score.tolist())
            for row, (name, defect, score) in enumerate(zip(*columns, strict=True)):
                above = 0.0 if threshold is None else (score - threshold) / spread
                verdict = {
                    "score": score,
                    "outcome": _outcome(score, threshold, is_normal=defect == NORMAL),
                    "wrongness": round(above if defect == NORMAL else -above, 4),
                }
                found[category, name].append((number, row, verdict))
    return found


def _outcome(score: float, threshold: float | None, *, is_normal: bool) -> str:
    if threshold is None:
        return "not judged"
    if score >= threshold:
        return "false alarm" if is_normal else "detected"
    return "passed" if is_normal else "miss"


def _mistakes_first(
    judged: Mapping[tuple[str, str], Sequence[_Judgement]],
) -> list[tuple[str, str]]:
    """Order images: mistakes of any run before all others, categories and outcomes in turn."""
    mistakes: dict[tuple[str, str], list[tuple[float, tuple[str, str]]]] = defaultdict(list)
    others: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for key, judgements in judged.items():
        worst = max((verdict for *_, verdict in judgements), key=lambda v: v["wrongness"])
        group = key[0], worst["outcome"]
        if worst["outcome"] in _MISTAKES:
            mistakes[group].append((-worst["wrongness"], key))
        else:
            others[group].append(key)
    worst_first = [[key for _, key in sorted(mistakes[group])] for group in sorted(mistakes)]
    return turns(worst_first) + turns([others[group] for group in sorted(others)])


def _references(
    runs: Sequence[TestedRun], roots: Sequence[Path], album: Album
) -> dict[str, str | None]:
    """Return the address of a normal photograph of each category, from training if it is known."""
    found: dict[str, str | None] = {}
    for run, root in zip(runs, roots, strict=True):
        for category, stored in run.stored.items():
            normal = stored.name[stored.defect == NORMAL]
            name = str(stored.reference[0]) or next(iter(normal.tolist()), "")
            if found.get(category) is None and name:
                read = photograph(root / name, album.side, kept_part=_kept_part(run))
                taken = album.take((read[0], "jpg")) if read else None
                found[category] = taken[0] if taken else None
    return found


def _image(
    runs: Sequence[TestedRun],
    roots: Sequence[Path],
    album: Album,
    key: tuple[str, str],
    judgements: Sequence[_Judgement],
) -> dict[str, Any] | None:
    """Return an image as plain data, None if its pictures no longer fit into the album."""
    category, name = key
    run, row, _ = judgements[0]
    stored = runs[run].stored[category]
    read = photograph(roots[run] / name, album.side, kept_part=_kept_part(runs[run]))
    mask, has_mask = stored.mask[row], bool(stored.has_mask[row])
    pictures = [
        (read[0], "jpg") if read else None,
        (mask_picture(mask), "png") if has_mask and mask.any() else None,
    ]
    for number, place, _ in judgements:
        theirs = runs[number].stored[category]
        drawn = theirs.reconstruction[place]
        pictures.append((map_picture(theirs.level[place]), "jpg"))
        pictures.append((plain_picture(drawn), "jpg") if drawn.size else None)
    taken = album.take(*pictures)
    if taken is None:
        return None
    photo, outline, *drawn_maps = taken
    of_run: list[dict[str, Any] | None] = [None] * len(runs)
    for i, (number, _, verdict) in enumerate(judgements):
        heat_map, reconstruction = drawn_maps[2 * i : 2 * i + 2]
        of_run[number] = {**verdict, "map": heat_map, "reconstruction": reconstruction}
    return {
        "name": name,
        "category": category,
        "defect": str(stored.defect[row]),
        "aspect": round(read[1], 4) if read else 1.0,
        "photo": photo,
        "mask": outline,
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
