"""What a run leaves behind: atomic files, the ledger of commits, the sinks that write shards."""
