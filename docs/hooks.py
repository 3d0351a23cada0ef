"""What MkDocs writes into pages: the keys of every command, from the configs, and the Python API, from its docstrings.

A page has `<!-- keys -->` or `<!-- functions -->` where they belong, and `<!-- demo -->` where the live demo, if it was
made, is linked. Pictures that are wide on a desk scroll on a phone.
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from textwrap import dedent
from typing import Any

from omegaconf import OmegaConf
from PIL import Image

import zsteer
from zsteer.app.composition import CONFIGS, compose, experiments, groups_of

FOLDER = Path(__file__).parent
DEMO = FOLDER / "demo.html"
WIDE = 900  # pixels of a picture whose text a phone's width would make too small
KINDS = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "word",
    list: "list",
    dict: "section",
    type(None): "optional",
}


@dataclass(frozen=True)
class Key:
    """A key of a config file, in full, with its value there, and the comment behind it."""

    name: str
    value: Any
    meaning: str


def keys_of(path: Path) -> list[Key]:
    """The keys that a config file sets, without its choice of groups and Hydra's own section."""
    content = plain(OmegaConf.load(path))
    keys, parents = [], []
    for line in path.read_text().splitlines():
        found = re.match(r"( *)([\w./]+):\s*(.*?)(?:\s*(?<!\S)# ?(.*))?$", line)
        if found is None:
            continue
        indent, name, _, comment = found.groups()
        parents = [*(parent for parent in parents if parent[0] < len(indent)), (len(indent), name)]
        names = [name for _, name in parents]
        if names[0] in ("defaults", "hydra") or name in ("_partial_", "_convert_"):
            continue
        value = reduce(lambda section, name: section[name], names, content)
        if not isinstance(value, dict) or not value:  # of a section, its keys
            keys.append(Key(".".join(names), value, (comment or "").replace("<", "&lt;")))
    return keys


def plain(config: Any, resolve: bool = False) -> Any:
    """A config as dicts, lists and values."""
    return OmegaConf.to_container(config, resolve=resolve)


def heading(path: Path) -> str:
    """What the comment at the head of a config file says."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
    head = re.match(r"(?:#.*\n?)*", "\n".join(lines))
    assert head is not None
    return " ".join(line.removeprefix("#").strip() for line in head[0].splitlines()).replace("<", "&lt;")


def package(path: Path) -> str:
    """Where in a config a group's file belongs: a prefix of its keys."""
    found = re.match(r"# @package (\S+)", path.read_text())
    if found is None:
        return ".".join(path.parent.relative_to(CONFIGS).parts) + "."
    return "" if found[1] == "_global_" else f"{found[1]}."


def typed(value: Any) -> str:
    """A value as one would type it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(typed, value))}]"
    return str(value) or "''"


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown."""
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def command_section(script: str) -> str:
    """A command: what it does, its keys, its groups and its presets."""
    path, composed = CONFIGS / f"{script}.yaml", plain(compose(script), resolve=True)
    rows = []
    for key in keys_of(path):
        value = key.value
        if isinstance(value, str) and "${" in value:  # what it is unless another key decides
            value = reduce(lambda section, name: section[name], key.name.split("."), composed)
        default = "required" if value == "???" else f"`{typed(value)}`"
        rows.append([f"`{key.name}`", KINDS[type(value)], default, key.meaning])
    chosen = groups_of(script).items()
    groups = ", ".join(f"[`{group}`](#{group.replace('/', '')})`={choice}`" for group, choice in chosen)
    parts = [f"## {script}", heading(path)]
    if rows:
        parts.append(table(["key", "type", "default", "meaning"], rows))
    if groups:
        parts.append(f"Groups, and what they are by default: {groups}.")
    if presets := experiments(script):
        folder = CONFIGS / "experiment" / script
        lines = [f"- `experiment={name}`: {heading(folder / f'{name}.yaml')}" for name in presets]
        parts.append("\n".join(["Presets:", "", *lines]))
    return "\n\n".join(parts)


def group_section(group: str) -> str:
    """A group: its choices, and their keys."""
    files = sorted((CONFIGS / group).glob("*.yaml"))
    found: dict[str, list[tuple[str, Key]]] = {}
    for path in files:
        for key in keys_of(path):
            found.setdefault(package(path) + key.name, []).append((path.stem, key))
    rows = []
    for name, uses in found.items():
        values = dict.fromkeys(f"`{typed(key.value)}`" for _, key in uses if key.value != "???")
        meaning = next((key.meaning for _, key in uses if key.meaning), "")
        if not name.endswith("_target_"):
            choices = ", ".join(choice for choice, _ in uses)
            rows.append([f"`{name}`", ", ".join(values) or "required", choices, meaning])
    parts = [
        f"### {group}",
        table(["choice", "what it is"], [[f"`{group}={path.stem}`", heading(path)] for path in files]),
    ]
    if rows:
        parts.append(table(["key", "default", "of", "meaning"], rows))
    return "\n\n".join(parts)


def commands() -> list[str]:
    """The names of the commands."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def keys_page() -> str:
    """Every command, then every group."""
    groups = dict.fromkeys(group for script in commands() for group in groups_of(script))
    return "\n\n".join([*map(command_section, commands()), "## Groups", *map(group_section, sorted(groups))])


def described(thing: Any) -> str:
    """A docstring as Markdown."""
    text = inspect.cleandoc(thing.__doc__ or "")
    text, *parts = re.split(r"^(Args|Raises):\n", text, flags=re.M)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    blocks = [f"{title}:\n\n{listed(body)}" for title, body in pairs]
    return "\n\n".join([text.strip(), *blocks]).strip()


def listed(body: str) -> str:
    """What stands below `Args:` or `Raises:` as a list, an item for each name."""
    items = re.split(r"\n(?=\S)", dedent(body).strip())
    return "\n".join(re.sub(r"\s*\n\s*", " ", re.sub(r"^(\w+):", r"- `\1`:", item)) for item in items)


def functions_page() -> str:
    """The functions of `zsteer`, and what they give."""
    parts = [inspect.cleandoc(zsteer.__doc__ or "")]
    for name, function in inspect.getmembers(zsteer, inspect.isfunction):
        if not name.startswith("_"):
            parts.append(f"## {name}\n\n```python\nzsteer.{name}{signature(function)}\n```\n\n{described(function)}")
    parts.append("## Results")
    parts += [f"### {result.__name__}\n\n{described(result)}\n\nIt has:\n\n{members(result)}" for result in results()]
    return "\n\n".join(parts)


def results() -> list[type]:
    """What the functions give, where that is an object of zsteer's."""
    from zsteer.data.faces import Prepared
    from zsteer.evaluation.codes import Codes
    from zsteer.evaluation.comparison import Compared
    from zsteer.evaluation.directions import NamedDirections
    from zsteer.evaluation.results import Scores
    from zsteer.inversion.results import Inverted
    from zsteer.pages.page import Page
    from zsteer.steering.results import Steered
    from zsteer.sweeps.summary import Summary
    from zsteer.training.results import Trained

    return [Steered, Inverted, Trained, Scores, Codes, Compared, NamedDirections, Page, Prepared, Summary]


def signature(function: Any) -> str:
    """A function's parameters, one a line, and what it gives."""
    whole = inspect.signature(function)
    lines = [f"    {parameter}," for parameter in map(str, whole.parameters.values())]
    given = inspect.formatannotation(whole.return_annotation)
    return "\n".join(["(", *lines, f") -> {given}"]).replace("'", "").replace("pathlib.Path", "Path")


def members(result: type) -> str:
    """What a result has, each with the first line of what is said of it."""
    return "\n".join(f"- `{name}`: {line}" for name, line in members_of(result))


def members_of(result: type) -> Iterator[tuple[str, str]]:
    """Its documented public properties and methods."""
    for name in dir(result):
        value = inspect.getattr_static(result, name)
        function = value.fget if isinstance(value, property) else value
        if not name.startswith("_") and inspect.isfunction(function) and function.__doc__:
            arguments = "" if isinstance(value, property) else "()"
            yield f"{name}{arguments}", function.__doc__.strip().splitlines()[0]


def demo_line() -> str:
    """The link to the live demo, beside the folder of the page that has it, or how to make it."""
    if DEMO.exists():
        return "**[Try one here](../demo.html)**, in this browser."
    return "`make docs` puts one here where `npm pack onnxruntime-web` has left its file in the clone."


def on_page_content(html: str, **_: Any) -> str:
    """MkDocs calls this for every page once it is HTML, here to mark its wide pictures for the style sheet."""

    def marked(tag: re.Match[str]) -> str:
        with Image.open(FOLDER / Path(tag[1]).name) as picture:
            return tag[0].replace("<img", '<img class="wide"') if picture.width > WIDE else tag[0]

    return re.sub(r'<img [^>]*src="([^"]+)"[^>]*>', marked, html)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this for every page."""
    for marker, written in {
        "<!-- keys -->": keys_page,
        "<!-- functions -->": functions_page,
        "<!-- demo -->": demo_line,
    }.items():
        if marker in markdown:
            markdown = markdown.replace(marker, written())
    return markdown
