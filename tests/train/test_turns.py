"""Who waits for the lock between training and drawing gets it next."""

import threading

from lpm.train.turns import Turns


def test_who_waits_comes_before_who_has_just_let_go():
    lock, order = Turns(), []

    def draw():
        with lock:
            order.append("picture")

    page = threading.Thread(target=draw)
    with lock:
        order.append("step 1")
        page.start()
        while not lock._next.locked():
            pass
    with lock:
        order.append("step 2")
    page.join()
    assert order == ["step 1", "picture", "step 2"]
