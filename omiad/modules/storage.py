"""How Lightning writes and reads the checkpoints of a training."""

from typing import Any

from lightning.fabric.plugins import TorchCheckpointIO

from omiad.checkpoint import read_checkpoint, write_checkpoint


class CheckpointFile(TorchCheckpointIO):
    """Write a checkpoint whole, and read it as plain data.

    Lightning itself would write a checkpoint to the system's temporary folder and move it.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint beside its final place, and rename it."""
        write_checkpoint(path, checkpoint)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint as `read_checkpoint` does."""
        return read_checkpoint(path)
