"""What is done: operations with their FLOPs, bytes and launches. No hardware lives here."""
