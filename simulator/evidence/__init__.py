"""Why the numbers can be trusted: runnable code, its traces, measurements and validation.

Import the subpackages by name; this package loads nothing, so torch stays optional.
"""
