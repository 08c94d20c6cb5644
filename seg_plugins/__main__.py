"""``python -m seg_plugins COMMAND ...``: the same as ``seg-plugins COMMAND ...``."""

from .cli.main import main

if __name__ == "__main__":
    main()
