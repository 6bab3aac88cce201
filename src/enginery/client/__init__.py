"""The client: a session with the controller, and the views and results that users work with."""
