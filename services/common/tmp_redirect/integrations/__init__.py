"""The frameworks that switch between workflows, or need a place of their own: one file each, which alone knows it."""
