"""What a person writes: GPU profiles, model shapes, workloads and scenarios."""
