"""Scripts that make this project's documents and shipped constants; not in the wheel."""
