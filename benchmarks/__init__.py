"""What enginery costs, beside the raw limits and what a user would pick instead. Run `scripts/bench --help`."""
