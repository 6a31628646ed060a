"""What comes in and goes out: kinds of arrays, their checks, files, progress bars."""
