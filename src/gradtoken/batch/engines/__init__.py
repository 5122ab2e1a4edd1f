"""Running a batch job in one process, or on Ray."""
