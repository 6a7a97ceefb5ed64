"""The work of a step: operations with their FLOPs, bytes and launches. No hardware."""
