"""What `pytest_plugin` is made of. Nothing else imports it, and pytest is imported nowhere else."""
