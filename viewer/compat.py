"""What differs between viser 0.2.7, which comes with nerfstudio 1.1.5, and viser 1.x; all of it is in this file."""

from __future__ import annotations

import contextlib
import io
import socket
from typing import Any

import viser

from lpm.checks import fail

LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(host: str, port: int, label: str) -> viser.ViserServer:
    """A viser server on `host` and `port`; says where it is, and so if others can reach it.

    Raises:
        LpmError: the port is taken. viser itself would take another one, where nobody looks for it.
    """
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            fail("--port", f"{port} on {host} ({error.strerror})", "a free port", "give another with --port")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints a table of its own, with names of no use here
        server = viser.ViserServer(host=host, port=port, label=label)
    here = "localhost" if host in ("0.0.0.0", "::") else host
    print(f"{label} at http://{here}:{server.get_port()}", flush=True)
    if host not in LOCAL:
        print(f"It listens on {host}: whoever reaches this machine over the network can look, too.", flush=True)
    return server


def client_id(client: Any) -> int:
    """The number of a client."""
    return client.client_id


def show_image(client: Any, image: Any, jpeg_quality: int, depth: Any = None) -> None:
    """Puts `image` [H, W, 3] uint8 behind the scene of one client; with `depth` [H, W] it hides what is behind it."""
    client.scene.set_background_image(image, format="jpeg", jpeg_quality=jpeg_quality, depth=depth)


def stop(server: viser.ViserServer) -> None:
    """Ends a server and frees its port."""
    server.stop()
