"""A recorded forward, and class-aware gradients computed from it."""
