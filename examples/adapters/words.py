"""The adapter of the guide: what a worker loads once, and the tools that it offers."""

import asyncio
import time
from collections.abc import Iterator

from snakepit import Adapter, context, tool


class Words(Adapter):
    """Knows which words matter."""

    def __init__(self, *stop_words: str) -> None:
        self.stop_words = {"the", "a", "of", *stop_words}

    def initialize(self) -> None:
        """Load what takes long here: it runs once in each worker, before its first call."""
        print("words are ready")

    def cleanup(self) -> None:
        """Let go of it; runs once, when the pool closes."""
        self.stop_words.clear()

    @tool(description="Count the words that matter", idempotent=True)
    def count(self, text: str, at_least: int = 1) -> int:
        """Count what is not a stop word and has so many letters."""
        words = [word for word in text.split() if word not in self.stop_words]
        return len([word for word in words if len(word) >= at_least])

    @tool
    def count_all(self, texts: list[str]) -> list[int]:
        """Count in one text after the other, and tell how far it is."""
        counts = []
        for done, text in enumerate(texts):
            context().progress(done, len(texts), f"reading {text!r}")
            counts.append(self.count(text))
        context().progress(len(texts), len(texts), "done")
        return counts

    @tool
    def translate(self, text: str) -> str:
        """Word by word, as the host knows them."""
        return " ".join(context().call_host("lookup", {"word": word}) for word in text.split())

    @tool
    def learn(self, word: str) -> list[str]:
        """Keep a word for this session; the worker forgets it when the session ends."""
        learnt: list[str] = context().session.setdefault("learnt", [])
        learnt.append(word)
        return learnt

    @tool
    def spell(self, word: str) -> Iterator[str]:
        """Give the letters one by one: a generator streams."""
        yield from word

    @tool
    def longest(self, words: Iterator[str]) -> str:
        """Take words one by one from the caller, who may pass an async iterable."""
        return max(words, key=len)

    @tool
    def reverse_all(self, words: Iterator[str]) -> Iterator[str]:
        """Take words and give words, both one by one."""
        for word in words:
            yield word[::-1]

    @tool(timeout=60)
    async def later(self, word: str, seconds: float) -> str:
        """Wait on the worker's own event loop."""
        await asyncio.sleep(seconds)
        return word

    @tool
    def ponder(self, seconds: float) -> None:
        """Block; a cancelled call is interrupted where it stands."""
        time.sleep(seconds)

    @tool(on_cancel="cooperative")
    def ponder_politely(self, seconds: float) -> int:
        """Ask now and then whether anybody still waits; never interrupted."""
        steps = 0
        while steps < seconds * 100:
            context().check_cancelled()
            time.sleep(0.01)
            steps += 1
        return steps


@tool
def reverse(word: str) -> str:
    """Turn a word round; a tool of the module, `open_pool("examples.adapters.words")`."""
    return word[::-1]
