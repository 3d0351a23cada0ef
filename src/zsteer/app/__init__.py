"""What turns a command line, or a call from Python, into a run."""
