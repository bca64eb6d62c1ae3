"""What each environment looks like: typed settings, the environments made in code, and the versions that fit."""
