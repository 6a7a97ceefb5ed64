"""Entry point for a checkout: python cli.py ..."""

from simulator.cli import main

if __name__ == "__main__":
    main()
