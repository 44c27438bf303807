"""Fit a variational auto-encoder to real digits, say how good it is, and draw what it learned.

Run it with `make demo`. The data are scikit-learn's: 8 x 8 images of handwritten digits with 17 grey levels.
"""

import argparse
import time
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import ravine as rv

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLUMNS = 14


def images(rows: np.ndarray) -> np.ndarray:
    """Rows of 64 cells as one wide strip of 8 x 8 images with a margin of one white cell."""
    padded = np.pad(rows.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)), constant_values=0.0)
    return np.concatenate(list(padded), axis=1)


def draw(strips: dict[str, np.ndarray], path: Path) -> None:
    """Write labelled strips of images, one below the other; a missing cell is red."""
    colours = matplotlib.colormaps["gray_r"].with_extremes(bad="#d9483b")
    figure, axes = plt.subplots(len(strips), figsize=(9.5, 0.85 * len(strips)), squeeze=False)
    for axis, (label, rows) in zip(axes[:, 0], strips.items(), strict=True):
        axis.imshow(np.ma.masked_invalid(images(rows)), cmap=colours, vmin=0, vmax=16)
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=11)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def hide(rows: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A copy with that share of the cells missing, at random."""
    hidden = np.random.default_rng(seed).random(rows.shape) < share
    return np.where(hidden, np.nan, rows)


def main(out: Path) -> None:
    """Fit, score and draw; a minute or two on two cores."""
    out.mkdir(parents=True, exist_ok=True)
    X, digit = load_digits(return_X_y=True)
    train, test = train_test_split(X, test_size=0.2, random_state=0, stratify=digit)

    print(f"fitting a VAE to {len(train)} digits ...", flush=True)
    started = time.perf_counter()
    model = rv.VAE(latents=16, kind="levels", levels=17, random_state=0).fit(train)
    print(f"fitted in {time.perf_counter() - started:.0f} s\n")

    print(f"held-out log-likelihood: {model.evaluate(test)}")
    print(f"missing half of the cells: {model.evaluate(hide(test, 0.5, seed=1))}\n")

    shown = test[:COLUMNS]
    holed = hide(shown, 0.5, seed=2)
    drawn = model.sample(4 * COLUMNS)
    draw({f"{i + 1}": drawn[i * COLUMNS : (i + 1) * COLUMNS] for i in range(4)}, out / "samples.png")
    draw(
        {
            "held-out digits": shown,
            "what the model expects": model.reconstruct(shown),
            "half of the cells hidden": holed,
            "filled in": model.impute(holed),
        },
        out / "imputed.png",
    )
    print(f"pictures: {out / 'samples.png'} (drawn by the model), {out / 'imputed.png'} (holes filled in)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the pictures")
    main(parser.parse_args().out)
