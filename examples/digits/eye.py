"""What the worker runs that large arrays are sent to. Without scikit-learn it starts quickly."""

import numpy as np
from numpy.typing import NDArray

from snakepit import Adapter, tool


class Eye(Adapter):
    """Looks at what it is shown."""

    @tool
    def look(self, pixels: NDArray[np.float64]) -> tuple[int, float, float]:
        """How many pixels there are, and the first and the last one: their way here is all that costs."""
        return pixels.size, float(pixels.flat[0]), float(pixels.flat[-1])
