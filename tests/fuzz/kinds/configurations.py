"""Configuration files: they are trusted to name code, and a mistake in them is one sentence."""

import json
from pathlib import Path
from typing import Any

import yaml
from world import QUIET, World

from fuzz.cases import INPUT, OUTPUT, Case, command
from fuzz.mutations import STRANGE, Rng, damaged, mutated, pick

PLAIN = tuple(each for each in STRANGE if not isinstance(each, (bytes, tuple)))


def configurations(world: World, rng: Rng, folder: Path) -> Case:
    """Mutate the configuration of a run, and read it with fit, cache build or a resumed run."""
    path = folder / INPUT / "config.yaml"
    config: Any = yaml.safe_load((world.home / "amdm/config.yaml").read_text())
    config["data"] |= {"cache_dir": f"{OUTPUT}/cache", "num_workers": 0}
    config["trainer"].pop("logger", None)
    config.pop("run_dir", None)
    config.pop("ckpt_path", None)
    if rng.random() < 0.8:
        path.write_text(json.dumps(mutated(config, rng, strange=PLAIN), indent=1))  # also YAML
    else:
        path.write_bytes(damaged(yaml.safe_dump(config).encode(), rng))
    door = pick(rng, ("print", "fit", "cache"))
    if door == "cache":
        words = f"cache build --config {INPUT}/config.yaml --data.cache_dir={OUTPUT}/cache"
        return Case(command(f"{words} --device cpu {_weights(path)}"))
    words = f"fit --config {INPUT}/config.yaml --run_dir {OUTPUT}/f {QUIET} --trainer.max_steps=1"
    words += f" --data.cache_dir={OUTPUT}/cache --trainer.default_root_dir={OUTPUT}"
    words += f" --trainer.num_nodes=1 {_weights(path)}"  # a run would wait for the other nodes
    return Case(command(f"{words} --print_config" if door == "print" else words))


def _weights(path: Path) -> str:
    """Return an option where a configuration lost its weights: the default would be downloaded."""
    try:
        data = yaml.safe_load(path.read_text())["data"]
        return "" if isinstance(data.get("weights"), str) else "--data.weights=random"
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "--data.weights=random"
