"""A way of attention for each file: what it reads, writes and computes."""
