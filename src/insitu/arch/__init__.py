"""A chip, as data: the schema, the presets, what makes a description consistent, and what its events cost."""
