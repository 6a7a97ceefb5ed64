"""Output of the answers: JSON objects, tidy rows, tables, figures and pages."""
