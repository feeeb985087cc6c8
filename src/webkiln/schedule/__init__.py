"""Loop nests and the rules that shape them for a target."""
