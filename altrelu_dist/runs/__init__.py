"""A training run as a user starts it, by a command or as a job: options, what it says, its end."""
