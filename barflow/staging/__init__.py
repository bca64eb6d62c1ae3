"""MongoDB staging: sessions, quarantine and ledger."""
