"""``python -m ravine``: the same as the command ``ravine``."""

from ravine.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
