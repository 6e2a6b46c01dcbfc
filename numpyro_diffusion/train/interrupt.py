"""Ctrl-C that lets the step in hand end: its inputs may be gone already, and its results are not there yet."""

from __future__ import annotations

import signal
import threading


class Interrupt:
    """While it lasts, the first Ctrl-C only sets `asked`; a second one raises KeyboardInterrupt as usual.

    Outside the main thread, where Python allows no handlers, and where SIGINT has one of another kind, nothing changes.
    """

    def __init__(self):
        self.asked, self._before = False, None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if before is signal.default_int_handler:
                self._before = before
                signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_):
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
