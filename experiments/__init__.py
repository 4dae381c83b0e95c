"""One file per kind of experiment: flags, data, model, optimizer, learner, run, figures."""

import time

STARTED = time.perf_counter()
