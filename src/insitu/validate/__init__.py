"""Published silicon against the model: what is modelled from its own description, how far off, and what is missing."""
