"""The images of a page: photograph and mask, and the score, map and outcome of each run."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, TypeAlias

from PIL import Image

from omiad.names import one_line
from omiad.photographs import WHITE_LEVEL
from omiad.record import protocol_of
from omiad.report.kept import turns
from omiad.report.pictures import Album, encoded, map_picture, mask_picture, photograph
from omiad.report.runs import TestedRun
from omiad.types import NORMAL

logger = logging.getLogger(__name__)

_Judgement: TypeAlias = tuple[int, int, dict[str, Any]]
"""Number of a run, row of the image among its stored images, and what gallery.js shows of both."""


def images(runs: Sequence[TestedRun], album: Album) -> dict[str, Any]:
    """Return the images of a page, mistakes first, and what the page says about them.

    An image of several tests is shown once, with the map of each.
    """
    judged = _judged(runs)
    references = _references(runs, album)
    in_order = (_image(runs, album, key, judged[key]) for key in _mistakes_first(judged))
    shown = list(takewhile(bool, in_order))
    warning = ""
    if num_missing := sum(image is not None and image["photo"] is None for image in shown):
        warning = (
            f"{num_missing} of {len(shown)} photographs were not found below "
            f"{one_line(str(runs[0].root))}, or have changed since the test. Make the report again "
            f"with --root, the folder where they are now."
        )
        logger.warning(warning)
    thresholds = [{name: of.threshold for name, of in run.scores.items()} for run in runs]
    gallery = {
        "judged": True,
        "runs": [{"name": r.name, "thresholds": t} for r, t in zip(runs, thresholds, strict=True)],
        "references": references,
        "images": shown,
    }
    return {
        "num_tested": len({image for run in runs for image in run.images}),
        "num_kept": len(judged),
        "num_shown": len(shown),
        "max_megabytes": album.max_megabytes,
        "silent": [run.name for run in runs if not run.stored],
        "warning": warning,
        "scales": [
            (i, run.name, *run.record["map_range"]) for i, run in enumerate(runs) if run.stored
        ],
        "gallery": gallery if shown else None,
    }


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
                outcome, above = "not judged", 0.0
                if threshold is not None:
                    names = ("passed", "false alarm") if defect == NORMAL else ("miss", "detected")
                    outcome, above = names[score >= threshold], (score - threshold) / spread
                wrongness = round(above if defect == NORMAL else -above, 4)
                verdict = {"score": score, "outcome": outcome, "wrongness": wrongness}
                found[category, name].append((number, row, verdict))
    return found


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
            normal = stored.defect == NORMAL
            known = [*zip(stored.reference, stored.reference_digest, strict=True)]
            known += zip(stored.name[normal], stored.digest[normal], strict=True)
            name, digest = next(((str(n), str(d)) for n, d in known if n), ("", ""))
            if found.get(category) is None and name:
                photo, _ = _photograph(run, name, digest, album)
                found[category] = (album.take(photo) or [None])[0]
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
    photo, aspect = _photograph(runs[run], name, str(stored.digest[row]), album)
    mask, has_mask = stored.mask[row], bool(stored.has_mask[row])
    pictures = [photo, mask_picture(mask) if has_mask and mask.any() else None]
    for number, place, _ in judgements:
        theirs = runs[number].stored[category]
        drawn = theirs.reconstruction[place]
        pictures.append(map_picture(theirs.level[place]))
        pictures.append(encoded(Image.fromarray(drawn), quality=85) if drawn.size else None)
    taken = album.take(*pictures)
    if taken is None:
        return None
    photo_address, outline, *drawn_maps = taken
    of_run: list[dict[str, Any] | None] = [None] * len(runs)
    for i, (number, _, verdict) in enumerate(judgements):
        heat_map, reconstruction = drawn_maps[2 * i : 2 * i + 2]
        of_run[number] = {**verdict, "map": heat_map, "reconstruction": reconstruction}
    return {
        "name": name,
        "category": category,
        "defect": str(stored.defect[row]),
        "aspect": round(aspect, 4),
        "photo": photo_address,
        "mask": outline,
        "has_mask": has_mask,
        "runs": of_run,
    }


def _photograph(run: TestedRun, name: str, digest: str, album: Album) -> tuple[bytes | None, float]:
    """Return a photograph and its aspect, cut as the protocol of the run cuts it."""
    protocol = protocol_of(run.record)
    kept_part = protocol.given_size / protocol.input_size
    white_level = run.record["model"].get("white_level", WHITE_LEVEL)
    return photograph(run.root / name, album.side, kept_part, white_level, digest=digest)
