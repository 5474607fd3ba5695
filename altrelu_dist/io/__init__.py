"""Files that are written whole, exchanged in one step, and owned by one process at a time."""
