"""A committee: several members, each trained on other rows, that become one network.

It knows blocks of rows, members and what they predict for rows that they were not trained on; of
Dask and of the rows' origin it knows nothing.
"""

from altrelu_dist.committee.settings import COMMITTEE, CommitteeSettings, Kind

__all__ = ["COMMITTEE", "CommitteeSettings", "Kind"]
