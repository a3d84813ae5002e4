"""Providers of models: an address and the name of a key stand in a file, the rest is one server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from medix_eval.models.openai_server import OpenAIServer
from medix_eval.storage.yaml_settings import read_mapping

_FILE = Path(__file__).with_name("providers.yaml")


class Provider(BaseModel):
    """One entry of `providers.yaml`; its key is what stands before the colon of a model's name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str
    key_env: str
    """The environment variable that holds the user's key."""


def load_providers() -> dict[str, Provider]:
    """Read the providers by name."""
    listed = read_mapping(_FILE, what="provider list")
    return {name: Provider.model_validate(one) for name, one in listed.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvidedModel(OpenAIServer):
    """A model at a provider; only its name tells it from one behind `--base-url`."""

    provider: str

    @property
    def name(self) -> str:
        """The name as given on the command line."""
        return f"{self.provider}:{self.model}"

    @property
    def where(self) -> str:
        """The address and who gave it, for messages."""
        return f"{self.base_url}, the address of {self.provider}"
