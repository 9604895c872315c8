"""What differs between viser 0.2.7, which comes with nerfstudio 1.1.5, and viser 1.x; all of it is in this file."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import io
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import viser
import viser.infra
import viser.transforms

from lpm.checks import fail

LOCAL = ("127.0.0.1", "localhost", "::1")
# The page of viser 0.2.7 reports each visit to Google.
ANALYTICS = re.compile(
    rb"<script\b[^>]*googletagmanager[^>]*>\s*</script>|<script>(?:(?!</script>).)*?\bgtag\((?:(?!</script>).)*</script>",
    re.DOTALL,
)


REST = Path(__file__).with_name("rest.js")


class _FrontPage:
    """viser's index.html without what would report the visit, and with a page at rest that does not draw."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:  # what 0.2.7 asks
        return True

    def is_file(self) -> bool:  # what 1.x asks
        return True

    def read_bytes(self) -> bytes:
        page = ANALYTICS.sub(b"", self.path.read_bytes())
        return page.replace(b"<head>", b"<head><script>" + REST.read_bytes() + b"</script>", 1)


class _Pages:
    """The folder of viser's page, and nothing else: viser joins to it whatever a request names, `..` included."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.front = _FrontPage(self.root / "index.html")

    def __truediv__(self, name: str) -> Path | _FrontPage:
        nothing = self.root / "nothing"
        try:
            path = (self.root / name).resolve()
            if not path.is_relative_to(self.root) or not path.is_file():
                return nothing
        except (OSError, ValueError):  # a name too long, or with a zero byte in it
            return nothing
        return self.front if path == self.front.path else path


@contextlib.contextmanager
def _atomic(handler: Any) -> Iterator[None]:
    """viser's `atomic()`, which 0.2.7 leaves locked for good after an error inside, or if two threads meet at its end.

    nerfstudio's viewer uses it at every move of a camera, and errs there when the page has just been closed.
    """
    me = threading.get_ident()
    if handler._locked_thread_id == me:
        yield
        return
    with handler._atomic_lock:
        handler._locked_thread_id = me
        try:
            yield
        finally:
            handler._locked_thread_id = -1  # while the lock is still ours


def mend() -> None:
    """Mends viser in this process, for nerfstudio's servers too.

    They serve files of viser's page only, the page reports to nobody and rests when nothing happens, and no lock is
    left behind by an error.
    """
    usual: Any = viser.infra.WebsockServer
    if getattr(usual, "mended", False):
        return

    class Mended(usual):
        mended = True

        def start(self) -> None:
            self._http_server_root: Any = _Pages(self._http_server_root)
            super().start()

    viser.infra.WebsockServer = Mended  # type: ignore[misc]
    if importlib.metadata.version("viser").startswith("0."):
        viser.infra.WebsockMessageHandler.atomic = _atomic  # type: ignore[method-assign, assignment]


def serve(host: str, port: int, label: str) -> viser.ViserServer:
    """A viser server on `host` and `port` (0: any free one); says where it is, and so if others can reach it.

    Raises:
        LpmError: the port is taken. viser itself would take another one, where nobody looks for it.
    """
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            port = probe.getsockname()[1]  # 0 asks for any
        except OSError as error:
            fail("--port", f"{port} on {host} ({error.strerror})", "a free port", "give another with --port")
    mend()
    # It prints a table of its own, with names of no use here.
    with contextlib.redirect_stdout(io.StringIO()):
        server = viser.ViserServer(host=host, port=port, label=label, verbose=False)
    here = "localhost" if host in ("0.0.0.0", "::") else host
    print(f"{label} at http://{here}:{server.get_port()}", flush=True)
    if host not in LOCAL:
        print(f"It listens on {host}: whoever reaches this machine over the network can look, too.", flush=True)
    return server


def free_port(host: str, port: int) -> int:
    """`port`, or the next one that is free on `host`."""
    for candidate in range(port, min(port + 1000, 65536)):
        with (
            contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe,
            contextlib.suppress(OSError),
        ):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, candidate))
            return candidate
    fail("--viewer.websocket-port", f"{port} and a thousand after it on {host} are taken", "a free port")


def client_id(client: Any) -> int:
    """The number of a client."""
    number: int = client.client_id
    return number


def show_image(client: Any, image: Any, jpeg_quality: int, depth: Any = None) -> None:
    """Puts `image` [H, W, 3] uint8 behind the scene of one client; with `depth` [H, W] it hides what is behind it."""
    client.scene.set_background_image(image, format="jpeg", jpeg_quality=jpeg_quality, depth=depth)


def notify(client: Any, title: str, body: str) -> None:
    """Shows a note in the page of one client, for ten seconds."""
    try:
        client.add_notification(title, body, auto_close_seconds=10.0)
    except TypeError:  # 0.2.7
        client.add_notification(title, body, auto_close=10_000)


def move_camera(client: Any, position: Any, wxyz: Any, up: Any, distance: float, fov: float) -> None:
    """Puts the camera of one client somewhere; it orbits around what is `distance` ahead, about `up` [3]."""
    right, down, ahead = viser.transforms.SO3(np.asarray(wxyz, np.float64)).as_matrix().T
    # As near to `up` as gives this rotation: a camera that is held askew tilts what the orbit goes around.
    upright = up - (up @ right) * right
    if upright @ -down < 0.05:
        upright = -down
    place = np.asarray(position, np.float64)
    # viser could be told wxyz, but it then reads the place from what the page last said, which may be of before.
    with client.atomic():
        client.camera.up_direction = upright
        client.camera.position = place
        client.camera.look_at = place + distance * ahead
        client.camera.fov = fov


def send_file(client: Any, name: str, content: bytes) -> None:
    """Lets the browser of `client` download `content` under `name`."""
    try:
        client.send_file_download(name, content, save_immediately=True)  # 1.x would ask first
    except TypeError:
        client.send_file_download(name, content)


def stop(server: viser.ViserServer) -> None:
    """Ends a server; its port is free afterwards."""
    inner: Any = server._websock_server
    sockets = getattr(inner, "_ws_server", None)
    if sockets is None:  # 1.x; it returns before the port is free
        address = ("127.0.0.1" if server.get_host() == "0.0.0.0" else server.get_host(), server.get_port())
        server.stop()
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                socket.create_connection(address, 1).close()
            except OSError:
                return
            time.sleep(0.02)
        return
    # 0.2.7 closes it from the wrong thread, at some later time, and leaves its event loop running.
    loop = inner._broadcast_buffer.event_loop

    async def close() -> threading.Thread:
        sockets.close()
        await sockets.wait_closed()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        return threading.current_thread()

    inner._ws_server = None
    with contextlib.suppress(TimeoutError, asyncio.TimeoutError), contextlib.redirect_stdout(io.StringIO()):
        thread = asyncio.run_coroutine_threadsafe(close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)  # it says good-bye, which nobody needs to read
    inner._thread_executor.shutdown(wait=False)
