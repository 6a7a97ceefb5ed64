"""What will a decode step cost, and does reading the shared context once pay off?"""

from simulator._version import __version__

__all__ = ["__version__"]
