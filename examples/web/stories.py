"""What the workers of both applications do. Nothing here knows of the web."""

import os
import time
from collections.abc import Iterator

from snakepit import Adapter, tool


class Stories(Adapter):
    """Stands for a model: slow to load, slow to use, and worth keeping."""

    def initialize(self) -> None:
        """Where a model would be loaded."""
        self.words = ["once", "upon", "a", "time", "there", "was", "a", "snake", "in", "a", "pit"]

    @tool(idempotent=True)
    def title(self, about: str) -> str:
        """Make a title for a story about something."""
        return f"The Tale of the {about.title()}"

    @tool
    def ponder(self, seconds: float) -> str:
        """Think for so many seconds."""
        time.sleep(seconds)
        return "it is a snake"

    @tool
    def tell(self, words: int, pause: float = 0.0) -> Iterator[str]:
        """Tell a story, a word at a time."""
        for number in range(words):
            yield self.words[number % len(self.words)]
            time.sleep(pause)

    @tool
    def worker(self) -> int:
        """Say which process works here."""
        return os.getpid()
