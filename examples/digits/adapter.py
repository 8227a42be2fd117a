"""What each worker of the demo runs: a classifier of scanned digits, trained once per process."""

import os
import secrets
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from snakepit import Adapter, context, tool

Images = NDArray[np.float64]
Labels = NDArray[np.int64]

SURE = 0.4  # a digit with no label of this probability is unclear


def load() -> tuple[Images, Labels, NDArray[np.bool_]]:
    """The 1,797 digits, shape (1797, 64), values 0 to 1; their labels; which are held out.

    No model ever learns from the held-out third, so accuracy on it means something.
    """
    images, labels = load_digits(return_X_y=True)
    numbers = np.arange(len(labels))
    _, chosen = train_test_split(numbers, test_size=1 / 3, stratify=labels, random_state=0)
    return images / 16, labels, np.isin(numbers, chosen)


class DigitsAdapter(Adapter):
    """One instance lives in each worker, for as long as the worker does."""

    def initialize(self) -> None:
        """Train the classifier. Runs once, before the worker gets its first call."""
        images, labels, held_out = load()
        self.training = images[~held_out], labels[~held_out]
        self.testing = images[held_out], labels[held_out]
        self.model = ExtraTreesClassifier(n_estimators=300, random_state=0).fit(*self.training)
        self.token = secrets.token_hex(4)  # a new one would tell that the model was loaded anew
        self.interrupted = 0

    @tool(idempotent=True)
    def classify(self, images: Images) -> dict[str, Any]:
        """Say which digit each image shows. `images` has the shape (n, 64)."""
        return {"labels": self.model.predict(images), "pid": os.getpid()}

    @tool
    def classify_with_help(self, images: Images) -> dict[str, Any]:
        """Classify as `classify` does, but ask the user about what is unclear, once in a session."""
        told: dict[bytes, int] = context().session  # stays in this worker until the session ends
        chances = self.model.predict_proba(images)
        labels = self.model.classes_[chances.argmax(axis=1)]
        unclear = np.flatnonzero(chances.max(axis=1) < SURE)
        for i in unclear:
            image = images[i].tobytes()
            if image not in told:
                question = {"image": images[i], "guess": int(labels[i])}
                told[image] = context().call_host("which_digit", question)
            labels[i] = told[image]
        return {"labels": labels, "unclear": unclear, "pid": os.getpid()}

    @tool(idempotent=True)
    def model_info(self) -> dict[str, Any]:
        """Tell which process and which model these are."""
        return {"pid": os.getpid(), "token": self.token, "interrupted": self.interrupted}

    @tool
    def get_stuck(self) -> None:
        """Block for an hour, as a lost network connection might. Ordinary code: no async, no flag."""
        try:
            time.sleep(3600)
        finally:
            self.interrupted += 1

    @tool
    def train_network(self, epochs: int) -> Iterator[dict[str, float]]:
        """Train a second model, a small neural network, and tell after each epoch how it does."""
        network = MLPClassifier((64,), learning_rate_init=0.01, random_state=0)
        for epoch in range(1, epochs + 1):
            network.partial_fit(*self.training, classes=range(10))
            accuracy = network.score(*self.testing)
            yield {"epoch": epoch, "loss": float(network.loss_), "accuracy": float(accuracy)}
