"""What every result of a command can do: show itself in a terminal and in a notebook, and be saved."""

import base64
import html
from abc import ABC, abstractmethod
from pathlib import Path

from PIL.Image import Image

from zsteer.pictures import encoded


class Result(ABC):
    """A result; its class gives the lines (`__str__`), the files (`write`) and, where it has one, the picture."""

    @property
    def picture(self) -> Image | None:
        """None without one."""
        return None

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write the files."""

    def save(self, folder: str | Path) -> None:
        """Write the files into a folder that holds no other result.

        Raises:
            ValueError: it holds one.
        """
        if (Path(folder) / "metrics.json").exists():
            raise ValueError(f"folder={folder} already holds a result; name another folder")
        self.write(Path(folder))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """The picture and the lines, for notebooks."""
        text = f"<pre>{html.escape(str(self))}</pre>"
        if self.picture is None:
            return text
        return f'<img src="data:image/png;base64,{base64.b64encode(encoded(self.picture).data).decode()}">{text}'
