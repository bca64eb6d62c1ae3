"""The rehearsal: deploy to the AWS emulator, run, break and repair what was deployed."""
