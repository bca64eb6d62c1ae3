"""How fast is Barflow on this machine? Ratios against peers and limits, all measured in one run."""
