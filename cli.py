"""Entry point for a checkout: python cli.py ..."""

import sys

try:
    from simulator.cli import main
except ModuleNotFoundError as missing:
    if (missing.name or "").startswith("simulator"):
        raise
    sys.exit(
        f"error: {missing.name} is not installed for {sys.executable}: run 'make demo' and then "
        "'.venv/bin/python cli.py', or 'pip install .'"
    )

if __name__ == "__main__":
    main()
