"""The images of a page: photograph and mask, and the score, map and outcome of each run."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, TypeAlias

from PIL import Image

from omiad.protocols import PROTOCOLS
from omiad.report.kept import turns
from omiad.report.pictures import Album, encoded, map_picture, mask_picture, photograph
from omiad.report.runs import TestedRun
from omiad.types import NORMAL

logger = logging.getLogger(__name__)

_Judgement: TypeAlias = tuple[int, int, dict[str, Any]]
"""Number of a run, row of the image among its stored images, and what gallery.js shows of both."""


def images(runs: Sequence[TestedRun], album: Album, max_megabytes: float) -> dict[str, Any]:
    """Return the images of a page, mistakes first, and what the page says about them.

    Args:
        runs: The tests. An image of several tests is shown once, with the map of each.
        album: Takes the pictures until it is full.
        max_megabytes: Limit of the album.
    """
    judged = _judged(runs)
    references = _references(runs, album)
    in_order = (_image(runs, album, key, judged[key]) for key in _mistakes_first(judged))
    shown = list(takewhile(bool, in_order))
    warnings = []
    if silent := [run.name for run in runs if not run.stored]:
        warnings.append(
            f"{', '.join(silent)} kept no maps (--num_kept 0). Repeat the test to see them."
        )
    if num_missing := sum(image is not None and image["photo"] is None for image in shown):
        warnings.append(
            f"{num_missing} of {len(shown)} photographs were not found below {runs[0].root}. Make "
            f"the report again with --root, the folder where they are now."
        )
        logger.warning(warnings[-1])
    num_tested = len(set[Any]().union(*(run.images for run in runs)))
    gallery = {
        "judged": True,
        "runs": [
            {
                "name": run.name,
                "thresholds": {name: of.threshold for name, of in run.scores.items()},
            }
            for run in runs
        ],
        "references": references,
        "images": shown,
    }
    return {
        "about": f"{_how_many(num_tested, len(judged), len(shown), max_megabytes)} An image "
        "counts as defective if its score reaches the threshold of its category: the score with "
        "the highest F1 on these test images. A mistake is worse the further its score is on the "
        "wrong side of the threshold, in standard deviations of the category's scores.",
        "warnings": warnings,
        "scales": [
            (i, run.name, *run.record["map_range"]) for i, run in enumerate(runs) if run.stored
        ],
        "gallery": gallery if shown else None,
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
    worst = {
        key: max((verdict for *_, verdict in judgements), key=lambda v: float(v["wrongness"]))
        for key, judgements in judged.items()
    }
    groups: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for key, verdict in worst.items():
        groups[key[0], verdict["outcome"]].append(key)
    mistakes, others = [], []
    for (_, outcome), keys in sorted(groups.items()):
        if outcome in ("false alarm", "miss"):
            mistakes.append(sorted(keys, key=lambda key: (-worst[key]["wrongness"], key)))
        else:
            others.append(keys)
    return turns(mistakes) + turns(others)


def _references(runs: Sequence[TestedRun], album: Album) -> dict[str, str | None]:
    """Return the address of a normal photograph of each category, from training if it is known."""
    found: dict[str, str | None] = {}
    for run in runs:
        for category, stored in run.stored.items():
            normal = stored.name[stored.defect == NORMAL]
            name = str(stored.reference[0]) or next(iter(normal.tolist()), "")
            if found.get(category) is None and name:
                read = _photograph(run, name, album)
                taken = album.take(read[0]) if read else None
                found[category] = taken[0] if taken else None
    return found


def _image(
    runs: Sequence[TestedRun],
    album: Album,
    key: tuple[str, str],
    judgements: Sequence[_Judgement],
) -> dict[str, Any] | None:
    """Return an image as plain data, None if its pictures no longer fit into the album."""
    category, name = key
    run, row, _ = judgements[0]
    stored = runs[run].stored[category]
    read = _photograph(runs[run], name, album)
    mask, has_mask = stored.mask[row], bool(stored.has_mask[row])
    pictures = [read and read[0], mask_picture(mask) if has_mask and mask.any() else None]
    for number, place, _ in judgements:
        theirs = runs[number].stored[category]
        drawn = theirs.reconstruction[place]
        pictures.append(map_picture(theirs.level[place]))
        pictures.append(encoded(Image.fromarray(drawn), quality=85) if drawn.size else None)
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


def _photograph(run: TestedRun, name: str, album: Album) -> tuple[bytes, float] | None:
    """Return a photograph with its aspect, cut as the protocol of the run cuts it."""
    kept_part = 1.0
    if preset := PROTOCOLS.get(str(run.record["protocol"])):
        changes = run.record.get("protocol_changes") or {}
        size = int(changes.get("input_size", preset.input_size))
        kept_part = int(changes.get("crop", preset.crop) or size) / size
    return photograph(run.root / name, album.side, kept_part=kept_part)
