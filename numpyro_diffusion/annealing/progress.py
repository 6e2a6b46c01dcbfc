"""One progress bar for all that a run does, shown from its first moment: its pilot and compilation, then its levels."""

from __future__ import annotations

from tqdm.auto import tqdm


class Progress:
    """A bar with a name that says what is being done; silent where it is not shown. A context manager."""

    def __init__(self, name: str, shown: bool):
        self.name, self.shown = name, shown
        self.bar = tqdm(total=1, disable=not shown, desc=name)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_):
        self.bar.close()

    def say(self, text: str) -> None:
        """What is being done, before there are levels to count."""
        self.bar.set_description(f"{self.name}, {text}")

    def tell(self, text: str) -> None:
        """Lines that stay above the bar."""
        if self.shown:
            self.bar.write(text)

    def begin(self, total: int, done: int = 0) -> None:
        """Levels to come, and those that are behind already; the first takes the time to compile."""
        self.bar.reset(total=total)
        self.bar.update(done)
        self.say("compiling")

    def step(self, **figures: str) -> None:
        """One level more, with figures to show beside the bar."""
        self.bar.set_description(self.name, refresh=False)
        self.bar.set_postfix(figures, refresh=False)
        self.bar.update(1)
