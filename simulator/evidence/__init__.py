"""Why to believe the numbers: code that runs, traces of it, measurements and their validation.

Import the parts by name; this package itself loads nothing, so torch stays an extra.
"""
