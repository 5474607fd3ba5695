#!/usr/bin/env python
"""Goes on with a checkpoint where there is one, and else begins: what is restarted needs no hand.

train_or_resume.py CHECKPOINT DATA [OPTION OF altrelu train]...
"""

import os
import sys

import fsspec

from altrelu_dist.addresses import without_secrets

checkpoint, *begun = sys.argv[1:]
try:
    files, folder = fsspec.core.url_to_fs(checkpoint)
    there = files.glob(f"{folder.rstrip('/')}/checkpoint-*.bin")
except OSError as error:
    sys.exit(without_secrets(f"{checkpoint}: cannot be looked at: {error}"))
# All is said again: a checkpoint of other data or other options is refused, not gone on with.
command = ["altrelu", "train", *begun, "--resume" if there else "--checkpoint", checkpoint]
# In place of this process, so that signals reach the trainer.
os.execvp(command[0], command)
