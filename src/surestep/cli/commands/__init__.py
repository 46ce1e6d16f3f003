"""The commands of surestep, one file each."""
