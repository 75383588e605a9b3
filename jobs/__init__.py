"""One thin file a command: arguments, order of steps, nothing else."""
