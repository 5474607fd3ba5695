"""Training runs that live in a cluster: submitted, and looked at from anywhere."""

from altrelu_dist.jobs.folder import JobStatus
from altrelu_dist.jobs.job import Job, jobs, submit, submit_options

__all__ = ["Job", "JobStatus", "jobs", "submit", "submit_options"]
