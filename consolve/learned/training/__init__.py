"""What every training shares: the run, its record, processes, operators in torch."""
