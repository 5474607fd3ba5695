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
if there:
    command = ["altrelu", "train", "--resume", checkpoint]  # the other options are in there
else:
    command = ["altrelu", "train", *begun, "--checkpoint", checkpoint]
# In place of this process, so that signals reach the trainer.
os.execvp(command[0], command)
