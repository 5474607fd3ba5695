#!/usr/bin/env python
"""Goes on with a checkpoint where there is one, and else begins: what is restarted needs no hand.

train_or_resume.py CHECKPOINT DATA [OPTION OF altrelu train]...
"""

import os
import sys

from altrelu_dist.checkpoints.store import CheckpointStore
from altrelu_dist.errors import CheckpointError

checkpoint, *begun = sys.argv[1:]
try:
    there = CheckpointStore(checkpoint).newest
except CheckpointError as error:
    sys.exit(f"error: {error}")
# All is said again: a checkpoint of other data or other options is refused, not gone on with.
command = ["altrelu", "train", *begun, "--resume" if there else "--checkpoint", checkpoint]
# In place of this process, so that signals reach the trainer.
os.execvp(command[0], command)
