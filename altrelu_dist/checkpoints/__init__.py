"""Checkpoints: what a run has found so far, kept in storage, so that one cut off can go on."""
