"""Methods that attribute a score to pixels, and pool the attribution to tokens."""
