"""How fast a model is on this machine."""

from omiad.benchmark.command import benchmark as benchmark
