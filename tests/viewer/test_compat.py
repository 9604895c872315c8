"""What is mended in viser: its lock, and a page that rests."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from lpm.viewer import compat


@pytest.fixture
def server(capsys):
    made = compat.serve("127.0.0.1", 0, "test")
    yield made
    compat.stop(made)


def taken(server) -> bool:
    """Whether another thread could still get the lock within a second."""
    done = threading.Event()

    def use() -> None:
        with server.atomic():
            done.set()

    threading.Thread(target=use, daemon=True).start()
    return done.wait(1)


def test_an_error_inside_leaves_no_lock_behind(server):
    with pytest.raises(KeyError), server.atomic(), server.atomic():
        raise KeyError
    assert taken(server)


def test_many_threads_take_turns(server):
    """Each nested, as nerfstudio does; with the thread's number reset too late one in them stops for good."""
    turns = []

    def use() -> None:
        for _ in range(2000):
            with server.atomic(), server.atomic():
                turns.append(1)

    threads = [threading.Thread(target=use, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(turns) == 4 * 2000


def test_the_page_rests(server):
    page = server._websock_server._http_server_root / "index.html"
    content = page.read_bytes()
    assert content.index(b"requestAnimationFrame") < content.index(b'type="module"')
    assert b"googletagmanager" not in content


@pytest.mark.viewer
def test_a_page_that_begins_is_not_put_to_rest(tmp_path):
    """With pictures that cost .3 s: a touch leaves it time to begin, and at rest it looks again soon, then later."""
    from browser import Browser

    loop = """<script>
      const times = [], draw = time => {
        times.push(performance.now());
        while (performance.now() < times.at(-1) + 300);
        requestAnimationFrame(draw);
      };
      requestAnimationFrame(draw);
      setTimeout(() => dispatchEvent(new Event("focus")), 500);
    </script>"""
    file = tmp_path / "page.html"
    file.write_text(f"<script>{compat.REST.read_text()}</script>{loop}")
    with Browser(60) as browser:
        page = browser.open(file.as_uri())
        page.until("performance.now() > 12000", 30)
        times = np.array(page.evaluate("times"))
    assert ((times > 2500) & (times < 5000)).sum() >= 5
    waits = np.diff(times[times > 5000])
    assert 2 <= len(waits) <= 5
    assert (waits[1:] > 1.5 * waits[:-1]).all()
