"""``python -m seg_plugins.ops``: which implementation of the operators runs here, and why."""

from . import backend_report

if __name__ == "__main__":
    print(backend_report())
