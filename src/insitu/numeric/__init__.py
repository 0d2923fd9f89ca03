"""Integer number formats and their exact arithmetic (DESIGN 2)."""
