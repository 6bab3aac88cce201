"""The history: what became of every task, remembered beyond the controller's memory, within stated bounds."""
