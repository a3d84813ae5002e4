"""Put the top-level data folders into the wheel (an editable install reads them in place)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUNDLED = {
    "tasks": "medix_eval/_bundled/tasks",
    "judges": "medix_eval/_bundled/judges",
    "leaderboard": "medix_eval/_bundled/leaderboard",
    "training/recipes": "medix_eval/_bundled/recipes",
}


class BundleDataFolders(BuildHookInterface[Any]):
    """Hatchling finds this class by its base; nothing else refers to it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Map the data folders into the wheel; one that is missing stops the build."""
        if version == "editable":
            return
        for folder in BUNDLED:
            if not any((Path(self.root) / folder).rglob("*.*")):
                raise FileNotFoundError(f"data folder {folder!r} is missing or empty")
        build_data["force_include"].update(BUNDLED)
