"""From older spellings to today's: `surestep migrate`."""
