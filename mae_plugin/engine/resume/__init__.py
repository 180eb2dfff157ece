"""Finds the checkpoint to resume from, and compares its run with the present one.

``work_dir`` lists a run's checkpoints, ``find`` chooses the newest good one, and ``same_run``
compares the optimizer, the schedules, the data and the total batch. The checkpoint hooks call them.
"""
