"""The command surestep."""
