"""What is handed in: the check of it, the zip and the report."""
