"""What enginery costs, beside the raw limits and what users would pick instead: `scripts/bench --help`."""
