"""Transport: the only room that knows 0MQ and maps shared memory."""
