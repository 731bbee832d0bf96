"""What two or more capabilities share."""
