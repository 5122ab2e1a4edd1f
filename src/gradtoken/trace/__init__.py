"""What one forward showed, and class-aware gradients of it."""
