"""Streams of samples from outside: audio files and the features networks take from them."""
