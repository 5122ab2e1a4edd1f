"""Methods that attribute a score to pixels."""
