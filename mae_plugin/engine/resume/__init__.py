"""Finding the checkpoint to resume from, and comparing its run with this one."""
