"""Models from outside become Graphs: what is read, what is refused, and in which words."""
