"""The page itself, drawn by Gradio: what is seen, and what happens when something is moved.

It neither asks for anything from elsewhere nor sends anything there.
"""

import functools
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fastapi
import gradio as gr
from PIL.Image import Image

from zsteer.data.photos import open_photo
from zsteer.explore import markup
from zsteer.explore.keeping import keep
from zsteer.explore.paths import Told
from zsteer.explore.studio import Aim, Ended, Studio
from zsteer.explore.tabs import Tab
from zsteer.pictures import to_uint8
from zsteer.settings import MAX_SEED

MAX_BYTES = 16_000_000  # of what may be uploaded
MAX_PIXELS = 50_000_000
MAX_TABS = 32  # that are remembered
NOISE = ".safetensors"
PHOTOS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
STEP = 0.05  # σ of the slider
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
PROGRESS = gr.Progress()  # which Gradio gives each call of a handler its own of
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

# A click on a part of the page tells which one it was on.
CLICKED = """
element.addEventListener('click', event => {
  const part = event.target.closest('[data-%s]');
  if (part) trigger('click', {which: part.dataset.%s});
});
"""


def application(studio: Studio, folder: Path) -> fastapi.FastAPI:
    """The page as a web application."""
    blocks = layout(Handlers(studio, folder))
    blocks.state_session_capacity = MAX_TABS
    theme = gr.themes.Base(primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=MONO)
    return gr.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        blocks,
        path="/",
        theme=theme,
        css_paths=Path(__file__).parent / "page.css",
        max_file_size=MAX_BYTES,
        footer_links=[],
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,
        show_error=True,
    )


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose refusals the page tells in a line."""

    @functools.wraps(function)
    def telling(*arguments: Any, **more: Any) -> Any:
        if len(arguments) > 1 and arguments[1] is None:  # a tab that had to make room for others
            raise gr.Error("The page has forgotten this tab; load it anew.", print_exception=False)
        try:
            return function(*arguments, **more)
        except (ValueError, OSError) as error:
            raise gr.Error(str(error), print_exception=False) from error
        except (IndexError, TypeError) as error:
            raise gr.Error("The page has changed meanwhile; load it anew.", print_exception=False) from error
        except RuntimeError as error:  # out of memory, for one
            raise gr.Error(str(error).splitlines()[0], print_exception=False) from error
        except Ended:
            raise gr.Error("The page has been closed.", print_exception=False) from None

    return telling


class Handlers:
    """What happens when something is moved: of a tab, what the parts of the page become."""

    def __init__(self, studio: Studio, folder: Path):
        self.studio, self.folder = studio, folder
        self.judge = "classifier" if studio.cfg.judge is None else "judge"

    def moving(self, tab: Tab) -> list[str]:
        """The parts that follow the slider: pictures, bars, warnings, edits."""
        edits, views = tab.edits, tab.views()
        _, view = views[0]
        bars = markup.bars(view, edits.aim.target, edits.aim.held, self.judge)
        warnings = view.warnings if tab.refusal is None else [*view.warnings, tab.refusal]
        return [markup.pictures(views), bars, markup.notes(warnings), markup.chips(edits.made, edits.current)]

    def everything(self, tab: Tab) -> list[Any]:
        """All parts: the row of faces, those that follow the slider, the slider, what it is for."""
        edits, aim = tab.edits, tab.edits.aim
        low, high = edits.reach
        row = markup.faces(to_uint8(self.studio.images(tab.faces)), tab.chosen)
        label = f"{plain(aim.target)}: σ of change, by the {self.judge}"
        wanted = max(low, min(edits.wanted, high))
        slider = gr.Slider(low, high, wanted, label=label, interactive=edits.path is not None)
        return [row, *self.moving(tab), slider, aim.target, aim.method, aim.penalty_weight, list(aim.held)]

    @told
    def open(self) -> list[Any]:
        """A new tab, and all its parts."""
        tab = Tab(self.studio)
        return [tab, *self.everything(tab)]

    @told
    def steer(
        self,
        tab: Tab,
        target: str,
        method: str,
        penalty: float,
        held: list[str],
        rival: str,
        progress: gr.Progress = PROGRESS,
    ) -> list[Any]:
        """Another aim."""
        with tab.lock:
            tab.steer(Aim(target, method, float(penalty), tuple(held)), rival or None, telling(progress))
            return self.everything(tab)

    @told
    def scrub(self, tab: Tab, wanted: float) -> list[str]:
        """The slider: nothing is steered."""
        tab.edits.wanted = float(wanted)
        return self.moving(tab)

    @told
    def undo(self, tab: Tab, progress: gr.Progress = PROGRESS) -> list[Any]:
        """One edit less."""
        with tab.lock:
            tab.undo(telling(progress))
            return self.everything(tab)

    @told
    def put_earlier(self, tab: Tab, event: gr.EventData, progress: gr.Progress = PROGRESS) -> list[Any]:
        """Another order."""
        with tab.lock:
            tab.put_earlier(int(event.which), telling(progress))
            return self.everything(tab)

    @told
    def choose(self, tab: Tab, event: gr.EventData) -> list[Any]:
        """Another face, or all."""
        with tab.lock:
            face = int(event.which)
            tab.choose(None if face < 0 else face)
            return self.everything(tab)

    @told
    def renew(self, tab: Tab) -> list[Any]:
        """Other faces."""
        with tab.lock:
            tab.put(self.studio.faces_of_seed(random.randrange(MAX_SEED)))
            return self.everything(tab)

    @told
    def upload(self, tab: Tab, path: str, progress: gr.Progress = PROGRESS) -> list[Any]:
        """Faces of a file."""
        progress(0.0, desc="Looking for the face")
        faces = self.studio.faces_of_file(path) if path.endswith(NOISE) else self.studio.face_of_photo(photo_of(path))
        with tab.lock:
            tab.put(faces)
            return self.everything(tab)

    @told
    def hold(self, tab: Tab, names: list[str], event: gr.EventData) -> list[str]:
        """One attribute more that is held, or less."""
        name = event.which
        if name not in self.studio.holdable or name == tab.edits.aim.target:
            return names
        return [other for other in names if other != name] if name in names else [*names, name]

    @told
    def keep(self, tab: Tab, progress: gr.Progress = PROGRESS) -> list[Any]:
        """Runs of the edits, and how to make them again."""
        progress(0.0, desc="Keeping")
        with tab.lock:
            kept = keep(tab.edits, self.folder)
        return [gr.Column(visible=True), f"Kept in `{kept.folder}`. The same again:", kept.shell, kept.python]


def layout(handlers: Handlers) -> gr.Blocks:
    """What is where, and which handler follows what."""
    studio, judge = handlers.studio, handlers.judge
    first, methods = studio.first_aim, list(studio.commands.methods)
    with gr.Blocks(title="zsteer", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as blocks:
        tab = gr.State()
        part('<h1 class="title">zsteer<small>choose a face, move the slider</small></h1>')
        with gr.Row():
            with gr.Column(scale=8):
                faces = part(elem_id="faces", js_on_load=CLICKED % ("face", "face"))
            with gr.Column(scale=2, min_width=160):
                new = gr.Button("New faces", size="sm", elem_id="new")
                upload = gr.UploadButton("Photo or noise …", size="sm", file_types=[*PHOTOS, NOISE], elem_id="upload")
        with gr.Row():
            with gr.Column(scale=5, min_width=360):
                with gr.Row():
                    target = choice(studio.attributes, first.target, "Attribute", 180, elem_id="attribute")
                    method = choice(methods, first.method, "Method", 120, elem_id="method")
                pictures = part(elem_id="pictures")
                slider = gr.Slider(
                    -1, 1, 0, step=STEP, label=f"by the {judge}", elem_id="slider", buttons=[], interactive=False
                )
                chips = part(elem_id="chips", js_on_load=CLICKED % ("earlier", "earlier"))
                with gr.Row():
                    undo = gr.Button("Undo", size="sm", elem_id="undo")
                    keep = gr.Button("Keep", size="sm", variant="primary", elem_id="keep")
                notes = part(elem_id="notes")
            with gr.Column(scale=7, min_width=360):
                bars = part(elem_id="bars", js_on_load=CLICKED % ("name", "name"))
                with gr.Row():
                    rival = choice(["", *methods], "", "Beside it", 110, elem_id="rival")
                    penalty = gr.Slider(
                        *(0, max(2.0, first.penalty_weight), first.penalty_weight),
                        step=0.05,
                        label="Penalty",
                        min_width=150,
                        buttons=[],
                    )
                    held = choice(studio.holdable, [], "Hold only", 180, multiselect=True, elem_id="held")
        with gr.Column(visible=False) as again:
            where = gr.Markdown()
            shell = gr.Code(language="shell", label="In a shell", interactive=False, wrap_lines=True, elem_id="shell")
            python = gr.Code(language="python", label="In Python", interactive=False, wrap_lines=True, elem_id="python")

        moving = [pictures, bars, notes, chips]
        everything = [faces, *moving, slider, target, method, penalty, held]
        # One path is steered at a time, and who waits is told so; what only looks up takes no turn.
        private: dict[str, Any] = {"api_visibility": "private"}
        quiet = {"show_progress": "hidden", **private}
        at_once = {"concurrency_limit": None, **quiet}
        turn = {"concurrency_limit": 1, "concurrency_id": "steering", "show_progress_on": [pictures], **private}
        aims = [tab, target, method, penalty, held, rival]
        steer: dict[str, Any] = {"fn": handlers.steer, "inputs": aims, "outputs": everything, **turn}

        for changed in (target.input, method.input, rival.input, penalty.release, held.input):
            changed(**steer)
        slider.input(handlers.scrub, [tab, slider], moving, queue=False, trigger_mode="always_last", **quiet)
        blocks.load(handlers.open, None, [tab, *everything], **at_once).success(**steer)
        faces.click(handlers.choose, [tab], everything, **at_once).success(**steer)
        new.click(handlers.renew, [tab], everything, **at_once).success(**steer)
        upload.upload(handlers.upload, [tab, upload], everything, **turn).success(**steer)
        bars.click(handlers.hold, [tab, held], held, **at_once).success(**steer)
        undo.click(handlers.undo, [tab], everything, **turn)
        chips.click(handlers.put_earlier, [tab], everything, **turn)
        keep.click(handlers.keep, [tab], [again, where, shell, python], **turn)
    return blocks.queue()


def part(value: str = "", **more: Any) -> gr.HTML:
    """A part that is drawn by `markup`."""
    return gr.HTML(value, apply_default_css=False, **more)


def choice(names: Sequence[str], value: Any, label: str, min_width: int, **more: Any) -> gr.Dropdown:
    """A choice of names; the empty one means none."""
    return gr.Dropdown(
        [(plain(name) or "none", name) for name in names], value=value, label=label, min_width=min_width, **more
    )


def plain(name: str) -> str:
    """An attribute's name as a page shows it."""
    return name.replace("_", " ")


def telling(progress: gr.Progress) -> Told:
    """Tell the page how far steering is."""

    def tell(share: float) -> None:
        progress(share, desc="Steering")

    return tell


def photo_of(path: str) -> Image:
    """An uploaded photo.

    Raises:
        ValueError: it is none that can be read.
    """
    try:
        return open_photo(path, max_pixels=MAX_PIXELS)
    except ValueError as error:
        raise ValueError(f"{Path(path).name} cannot be read: {error}") from error
