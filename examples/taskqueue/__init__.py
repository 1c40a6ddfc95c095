"""The study of a task queue for model classes: `models.toml` lists them, nobody writes more."""
