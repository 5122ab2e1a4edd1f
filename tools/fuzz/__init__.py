"""Fuzzing: inputs that a file, a web page or a user might hand in, good and bad."""
