"""Optimizer wrappers, parameter groups and schedules."""
