"""The kinds of attacks: each writes one input from a generator and says what to run on it."""

from fuzz.cases import Kind
from fuzz.kinds import caches, checkpoints, configurations, images, maps, names, results

KINDS: dict[str, Kind] = {
    "checkpoint-structure": checkpoints.structure,
    "checkpoint-class": checkpoints.classes,
    "checkpoint-pickle": checkpoints.pickles,
    "checkpoint-bytes": checkpoints.bits,
    "results": results.results,
    "maps": maps.maps,
    "scores": maps.scores,
    "names": names.names,
    "images": images.images,
    "masks": images.masks,
    "configurations": configurations.configurations,
    "caches": caches.caches,
}
"""Each kind by its name on the command line."""
