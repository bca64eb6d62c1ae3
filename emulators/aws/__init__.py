"""An emulator of AWS on this host: moto's server, extended so that it runs what is deployed to it."""
