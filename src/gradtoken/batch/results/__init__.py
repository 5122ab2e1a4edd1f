"""What a batch run writes, and reading it back."""
