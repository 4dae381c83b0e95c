"""Pure losses, one file per kind."""
