"""What every run shares: the loop, the mesh, checkpoints, the run directory, figures. Knows no task and no model."""
