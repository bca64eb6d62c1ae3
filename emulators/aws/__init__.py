"""What stands in for AWS on a laptop: moto's server, which runs what is deployed to it."""
