"""The extension points of the trainer by topic: thin methods, each handing over to the part that owns the work."""
