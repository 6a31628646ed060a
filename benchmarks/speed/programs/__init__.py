"""The programs that are timed, each run in a process of its own."""
