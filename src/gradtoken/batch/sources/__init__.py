"""Where a batch job gets its images from."""
