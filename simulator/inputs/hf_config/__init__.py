"""Read a Hugging Face ``config.json``, whatever the model, without the transformers package.

An absent key means the default of that model's configuration class: ``model_types.py`` is the table
of those defaults, and ``reading.py`` uses it to read a file.
"""
