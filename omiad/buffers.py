"""Modules whose buffers have as many rows as a calibration chose."""

from typing import Any

from torch import nn


class FreeRows(nn.Module):
    """A module that loads buffers of any length; the checkpoint's own checks come before."""

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # A buffer of another length than the stored one would not be loaded.
        for name, buffer in list(self.named_buffers()):
            setattr(self, name, buffer.new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
