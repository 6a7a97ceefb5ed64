"""How long it takes: operation and GPU to seconds, and the roof that binds."""
