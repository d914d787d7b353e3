"""The frameworks that switch between workflows: one file each, which alone knows its framework."""
