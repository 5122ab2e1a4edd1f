"""Methods that read attention, or attention and its gradient."""
