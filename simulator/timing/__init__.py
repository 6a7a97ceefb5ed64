"""The time of operations on a GPU, and the roof that bounds each."""
