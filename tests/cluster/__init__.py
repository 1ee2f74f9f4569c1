"""Units on several processes and machines."""
