"""Bounds on what visitors may send to the page, and on what becomes of it in memory and on the disk."""

import ctypes
import functools
import inspect
import io
import os
import socket
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import PIL.Image
from gradio.components.image_editor import AcceptBlobs
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from images_that_sound.pipelines.images_that_sound_picture_reading import as_drawing, upright
from images_that_sound.scripts.common.samples import PICTURE_FORMATS, SETTINGS_KEY


# Values of editors that wait to be asked for, and work that waits for its turn, of all visitors.
MAX_WAITING = 16
# Visitors of whom the page keeps something in memory: the one who was away longest is forgotten.
MAX_VISITORS = 200
# Bytes of an upload, of a request of an editor, which is as large as its canvas, and of all other requests, which hold
# a few numbers and words.
MAX_UPLOAD, MAX_EDITED, MAX_REQUEST = 20_000_000, 2_000_000, 100_000
# Bytes of all that visitors keep on the disk, above which no upload is taken.
MAX_STORED = 2_000_000_000
# Pixels of a picture, by which it takes memory, however few bytes it has, and those of formats that take less or more:
# a JPEG is decoded at a smaller size, WebP and AVIF are copied twice.
MAX_PIXELS, MAX_PIXELS_OF = 16_000_000, {"JPEG": 51_000_000, "WEBP": 8_000_000, "AVIF": 8_000_000}
# Width and height of a picture after it is read.
MAX_SIDE = 2048
# Layers of a drawing board, and pixels of each.
MAX_LAYERS, MAX_BOARD_PIXELS = 4, 2_000_000
# Large pictures are decoded one after the other, in one thread: each thread would keep the memory that it took.
DECODING = ThreadPoolExecutor(1)


def read_visitors_picture(path: str, silence: float, invert: bool | None) -> tuple[PIL.Image.Image, bool]:
    """
    Reads a visitor's picture in little memory.

    Args:
        path (`str`): The file.
        silence (`float`): Brightness of silence: 0 is black, 1 is white.
        invert (`bool`, *optional*): Whether to swap light and dark. Default: for a drawing on the other ground.

    Returns:
        `tuple[PIL.Image.Image, bool]`: The picture, at most `MAX_SIDE` wide and high, and whether light and dark were
        swapped.

    Raises:
        ValueError: If the file is no picture, or has too many pixels.
    """
    try:
        picture = DECODING.submit(_decoded, path).result()
    except PIL.Image.DecompressionBombError as error:
        raise ValueError(f"`{path}` has too many pixels.") from error
    except (OSError, SyntaxError, EOFError, TypeError) as error:
        raise ValueError(f"`{path}` can't be read as a picture: {error}") from error
    finally:
        _give_back_memory()
    # A canvas that was made here is taken as it is.
    if SETTINGS_KEY in picture.info and invert is None:
        invert = False
    return as_drawing(picture, silence, invert)


def _give_back_memory() -> None:
    """Gives free memory back to the system. Linux's library keeps what a thread took for its next wish."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def _decoded(path: str) -> PIL.Image.Image:
    _give_back_memory()
    with warnings.catch_warnings():
        # The bound below is smaller.
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        picture = PIL.Image.open(path, formats=PICTURE_FORMATS)
    with picture:
        width, height = picture.size
        most = MAX_PIXELS_OF.get(picture.format, MAX_PIXELS)
        if width * height > most:
            raise ValueError(
                f"`{path}` has to have at most {most / 1e6:.0f} million pixels, but has {width * height / 1e6:.0f}."
            )
        picture.draft(None, (MAX_SIDE, MAX_SIDE))
        picture.load()
        info = picture.info
        # Before anything copies it.
        if picture.mode in ("L", "LA", "RGB", "RGBA"):
            picture.thumbnail((MAX_SIDE, MAX_SIDE))
        elif picture.mode[0] in "IF" and (times := max(width, height) // MAX_SIDE) > 1:
            # Pillow can't blend their pixels.
            picture = picture.resize((width // times, height // times), PIL.Image.Resampling.NEAREST)
        picture = upright(picture)
    if max(picture.size) > MAX_SIDE:
        alike = picture.has_transparency_data
        picture = picture.convert("RGBA" if alike else "RGB")
        picture.thumbnail((MAX_SIDE, MAX_SIDE))
    picture.info = {**info, **picture.info}
    return picture


def bound_editors() -> None:
    """
    Makes all editors refuse too many layers and too many pixels before they decode them.

    It changes the class: Gradio makes a new object of it for each visitor whose editor it updates. It would show a
    subclass without its brush and its size, and write a file beside the module.
    """
    preprocess, accept_blobs = map(inspect.unwrap, (gr.ImageEditor.preprocess, gr.ImageEditor.accept_blobs))

    @functools.wraps(preprocess)
    def preprocess_few(self: gr.ImageEditor, payload: object) -> object:
        sent = payload if payload is None or payload.id is None else self.blob_storage.get(payload.id)
        if sent is not None:
            _check_layers(sent)
        return preprocess(self, payload)

    @functools.wraps(accept_blobs)
    def accept_few(self: gr.ImageEditor, data: AcceptBlobs) -> None:
        index = data.data.get("index")
        if index and index != "null" and not 0 <= int(index) < MAX_LAYERS:
            raise gr.Error(f"A drawing may have {MAX_LAYERS} layers.", print_exception=False)
        accept_blobs(self, data)
        # A visitor may leave before anybody asks for a value.
        while len(self.blob_storage) > MAX_WAITING:
            del self.blob_storage[next(iter(self.blob_storage))]

    gr.ImageEditor.preprocess, gr.ImageEditor.accept_blobs = preprocess_few, accept_few


def _check_layers(sent: object) -> None:
    layers = sent.layers or []
    if len(layers) > MAX_LAYERS:
        raise gr.Error(f"A drawing may have {MAX_LAYERS} layers, but has {len(layers)}.", print_exception=False)
    for each in (sent.background, sent.composite, *layers):
        if each is None:
            continue
        try:
            with PIL.Image.open(io.BytesIO(each) if isinstance(each, bytes) else each.path) as picture:
                width, height = picture.size
        except Exception as error:
            raise gr.Error("The drawing can't be read.", print_exception=False) from error
        if width * height > MAX_BOARD_PIXELS:
            raise gr.Error(f"A drawing of {width} x {height} pixels is too large.", print_exception=False)


class SmallRequests:
    """
    Middleware that refuses requests larger than the page's own before they are read, and uploads once the disk's share
    is full. Deletes what aborted uploads leave.

    Args:
        app (`ASGIApp`): The page.
    """

    LIMITS = {"/upload": MAX_UPLOAD + MAX_REQUEST, "/component_server": MAX_EDITED}

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        # Bytes of uploads that are on their way.
        self.coming: list[int] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        path = scope.get("path", "").rstrip("/")
        most = next((limit for end, limit in self.LIMITS.items() if path.endswith(end)), MAX_REQUEST)
        size = int(headers.get("content-length", 0))
        if size > most or "transfer-encoding" in headers:
            await PlainTextResponse("Too large.", 413)(scope, receive, send)
        elif path.endswith("/upload"):
            await self._upload(size, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _upload(self, size: int, scope: Scope, receive: Receive, send: Send) -> None:
        if stored() + sum(self.coming) + size > MAX_STORED:
            await PlainTextResponse("The page is full. Try again in an hour.", 507)(scope, receive, send)
            return
        self.coming.append(size)
        try:
            await self.app(scope, receive, send)
        finally:
            self.coming.remove(size)
            # Gradio moves a complete upload into a folder. Files beside the folders are left by aborted ones.
            if not self.coming:
                for file in _upload_folder().glob("*"):
                    if file.is_file():
                        file.unlink(missing_ok=True)


def _upload_folder() -> Path:
    return Path(gr.utils.get_upload_folder())


def stored() -> int:
    """Bytes that visitors keep on the disk."""
    total = 0
    for folder, _, names in os.walk(_upload_folder()):
        for name in names:
            try:
                total += os.path.getsize(os.path.join(folder, name))
            except OSError:  # deleted meanwhile
                continue
    return total


def check_port(port: int | None) -> None:
    """Raises `ValueError` for a port that another program uses."""
    if port is None:
        return
    with socket.socket() as free:
        if os.name != "nt":
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind((os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"), port))
        except (OSError, OverflowError) as error:
            raise ValueError(f"`server_port` {port} can't be used: {error}. Name another one.") from error
