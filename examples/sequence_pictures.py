"""The picture of the guide to sequences: two noisy waves with gaps, and what a linear dynamical system makes of them.

Run it as ``python examples/sequence_pictures.py``.
"""

from pathlib import Path

import numpy as np

import ravine as rv
from ravine.pictures import series

STATIC = Path(__file__).parent.parent / "docs" / "_static"


def main() -> None:
    """Fit and draw."""
    stream = np.random.default_rng(0)
    time = np.arange(160)
    seen = np.column_stack([np.sin(time / 9), np.cos(time / 9)]) + 0.3 * stream.normal(size=(160, 2))
    seen[stream.random(seen.shape) < 0.4] = np.nan
    seen[70:95] = np.nan
    model = rv.LinearDynamicalSystem(latents=2, random_state=0).fit(seen)
    print(STATIC / "sequences.png")
    series(model, seen, ahead=40, path=STATIC / "sequences.png")


if __name__ == "__main__":
    main()
