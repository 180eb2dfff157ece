"""What every other part may use: locks on the file system, and processes that end with their
parent.
"""
