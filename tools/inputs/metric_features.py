"""Features for comparing metrics, of random integers: nothing in them depends on the machine."""

import numpy as np

WIDTH, MADE, REAL, CLASSES = 6, 48, 56, 7


def features(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(made [n d], real [m d], logits [n c]) in float64; columns differ in size and are related."""
    draw = np.random.default_rng(seed)

    def rows(count: int, width: int) -> np.ndarray:
        drawn = draw.integers(-1000, 1001, (4, count, width)).sum(axis=0) / 1000
        return drawn + 0.5 * np.roll(drawn, 1, axis=1)

    sizes = 0.5 + np.arange(WIDTH) / 3
    return 0.8 * sizes * rows(MADE, WIDTH) + 0.4, sizes * rows(REAL, WIDTH), 2 * rows(MADE, CLASSES)
