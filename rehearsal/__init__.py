"""The rehearsal: deploy to the AWS emulator, run, inject faults, recover, and compare with an oracle."""
