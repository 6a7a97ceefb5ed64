"""What makes the documents and shipped constants of this project; no part of the wheel."""
