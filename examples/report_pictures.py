"""Write two reports, one on a table with holes and one on images, and take pictures of them for the manual.

Run it as ``python examples/report_pictures.py``. Without a Chromium on this machine the reports are all there is.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits, load_wine

import ravine as rv
from ravine.models.families import Diagonal

STATIC = Path(__file__).parent.parent / "docs" / "_static"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars")
DARK = "--blink-settings=preferredColorScheme=0"
LIGHT = "--blink-settings=preferredColorScheme=1"
WIDE, NARROW, NARROWEST = 1280, 390, 500  # a browser window may not be narrower than the last


def table(path: Path) -> Path:
    """A report on wines with a fifth of the cells missing."""
    wine = load_wine(as_frame=True)
    X = wine.data.mask(np.random.default_rng(0).random(wine.data.shape) < 0.2)
    model = rv.GaussianMixture(components=3, covariance=Diagonal(), standardise=True, random_state=0).fit(X[::2])
    labels = np.asarray(wine.target_names)[wine.target[1::2]]
    found = model.diagnose(X[::2], X[1::2]).findings
    title = "Wine with a fifth of its cells missing"
    return rv.report(model, X[1::2], path, labels=labels, findings=found, unseen=True, title=title)


def images(path: Path) -> Path:
    """A report on handwritten digits."""
    digits = load_digits()
    train, test = slice(0, 1400), slice(1400, None)
    model = rv.VAE(latents=8, hidden=(128,), steps=4000, kind="levels", levels=17, random_state=0)
    model.fit(digits.images[train])
    labels, seen, fresh = digits.target[test], digits.images[train], digits.images[test]
    found = model.diagnose(seen, fresh).findings
    title = "A VAE of handwritten digits"
    return rv.report(model, fresh, path, labels=labels, findings=found, unseen=True, title=title)


def framed(page: Path, width: int, height: int) -> Path:
    """A page that shows another one in a frame of this width, for widths that no window can have."""
    outer = page.with_name(f"{page.stem}-{width}.html")
    style = f"width:{width}px;height:{height}px;border:0"
    outer.write_text(f'<!doctype html><body style="margin:0"><iframe src="{page.name}" style="{style}"></iframe>')
    return outer


def picture(browser: str, page: Path, out: Path, width: int, height: int, scheme: str) -> None:
    """Show the page in a window of this size and write what is seen."""
    from PIL import Image

    shown = page if width >= NARROWEST else framed(page, width, height)
    with tempfile.TemporaryDirectory() as profile:
        size = f"--window-size={max(width, NARROWEST)},{height}"
        command = [browser, *FLAGS, scheme, f"--user-data-dir={profile}", size, "--virtual-time-budget=2000"]
        subprocess.run([*command, f"--screenshot={out}", shown.as_uri()], check=True, capture_output=True)
    with Image.open(out) as seen:
        seen.crop((0, 0, width, height)).convert("P", palette=Image.Palette.ADAPTIVE).save(out, optimize=True)


def main(out: Path) -> None:
    """Fit, report, and take the pictures; a minute or two on two cores."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    with tempfile.TemporaryDirectory() as folder:
        for name, made in (("table", table), ("images", images)):
            page = made(Path(folder) / f"{name}.html")
            shutil.copy(page, out / f"report-{name}.html") if browser is None else None
            for width, height in ((WIDE, 2000), (NARROW, 2400)):
                for scheme, flag in (("", LIGHT), ("-dark", DARK)):
                    end = f"{'' if width == WIDE else '-phone'}{scheme}.png"
                    if browser is not None:
                        picture(browser, page, out / f"report-{name}{end}", width, height, flag)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=STATIC, help="folder for the pictures")
    main(parser.parse_args().out)
