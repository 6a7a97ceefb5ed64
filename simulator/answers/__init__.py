"""What it means: estimates, comparisons, capacity, plans and sweeps."""
