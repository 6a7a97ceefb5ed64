"""``python -m simulator``: the same as ``bifurcate``."""

from simulator.cli.main import main

if __name__ == "__main__":
    main()
