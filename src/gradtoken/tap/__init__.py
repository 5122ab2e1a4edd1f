"""What is observed of one forward of an unmodified module: attention, blocks and norms."""
