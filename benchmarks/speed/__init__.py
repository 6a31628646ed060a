"""Time and memory on a CPU: one question a file; `programs/` holds what is timed."""
