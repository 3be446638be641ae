"""Which steps of a long command an output folder holds, so that the same command goes on."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omiad.errors import InputError
from omiad.files import write_whole


class Ledger:
    """The steps that are done in an output folder, and the settings with which they were done.

    log/state.json holds both. The folder appears with the first step that is done.

    Args:
        folder: The output folder.
        settings: Plain data; only a command with the same settings goes on in the folder.

    Attributes:
        done: Names of the steps that are done.

    Raises:
        InputError: If the folder holds other settings, or something else.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, dict(settings)
        self._path = folder / "log" / "state.json"
        self.done: list[str] = self._read()

    def run(self, step: Callable[[], None]) -> None:
        """Take a step, unless it is done, and note it."""
        if (name := step.__name__) not in self.done:
            step()
            self.done.append(name)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            state = {"settings": self.settings, "done": self.done}
            write_whole(self._path, json.dumps(state, indent=2) + "\n")

    def _read(self) -> list[str]:
        if not self._path.is_file():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise InputError(
                    f"'{self.folder}' holds something else than a model of `omiad train`. Choose "
                    f"another --out."
                )
            return []
        try:
            stored = json.loads(self._path.read_text())
            before, done = dict(stored["settings"]), [str(name) for name in stored["done"]]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"'{self._path}' is damaged. Choose another --out.") from error
        changed = [name for name, now in self.settings.items() if before.get(name) != now]
        if changed:
            were = (f"{name} {before.get(name)}, not {self.settings[name]}" for name in changed)
            raise InputError(
                f"'{self.folder}' holds a model with other settings ({', '.join(were)}). Choose "
                f"another --out, or give the command that began it."
            )
        return done
