"""Closed forms of energy, time and area, for many layers on many chips at once; nothing is compiled or simulated."""
