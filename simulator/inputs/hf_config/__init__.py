"""Read a Hugging Face ``config.json``, whatever the model, without the transformers package.

A key that is absent means the default of that model's own configuration class, so there is one
table of model types (``families.py``) and one set of rules that reads a file by it (``family.py``).
"""
