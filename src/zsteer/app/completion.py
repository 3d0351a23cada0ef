"""Tab completion of attributes: Hydra's own knows keys and the choices of groups, but not what can be a target."""

import re

from hydra.plugins.completion_plugin import CompletionPlugin
from hydra.types import RunMode

from zsteer.data.attributes import steerable
from zsteer.sweeps.hydra_internals import words_of

NAMED_BY = ("target", "targets", "preserve", "where")


def complete_attributes() -> None:
    """Have Hydra's completion, in every shell, offer the attributes of the classifier that a command line chooses."""
    of_hydra = CompletionPlugin._query

    def query(self: CompletionPlugin, config_name: str | None, line: str) -> list[str]:
        words = words_of(line.split())
        key, _, value = words[-1].partition("=") if words and not line.endswith(" ") else ("", "", "")
        if key not in NAMED_BY or "=" not in words[-1]:
            return of_hydra(self, config_name, line)
        # What is begun is the last of several, as in targets=[Smiling,Ba or target=Smiling+Ba.
        *_, begun = re.split(r"[\[{,+]", value)
        before = words[-1].removesuffix(begun)
        cfg = self.config_loader.load_configuration(config_name, words[:-1], RunMode.RUN)
        return sorted(before + name for name in steerable(cfg.classifier, "classifier") if name.startswith(begun))

    CompletionPlugin._query = query
