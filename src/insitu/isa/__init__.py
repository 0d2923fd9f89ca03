"""What a chip can be told to do: instructions, programs, their encoding and reference semantics."""
