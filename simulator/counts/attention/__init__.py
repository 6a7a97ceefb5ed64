"""One way of attention per file: what it reads, writes and computes."""
