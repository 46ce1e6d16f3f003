"""What is measured: predictions collected, metrics, speed."""
